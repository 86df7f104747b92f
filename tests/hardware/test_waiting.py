from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llamafarm.hardware.waiting import wait_without_spinning

WHAT_OPENMP_READ = """
import sys
if sys.argv[1] == "ours":
    from llamafarm.hardware.waiting import wait_without_spinning
    wait_without_spinning()
import torch
"""


def test_the_policy_is_the_users_when_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_without_spinning()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU OpenMP comes with Linux")
def test_openmp_reads_it_although_it_is_set_by_the_process_itself() -> None:
    def openmp_s_settings(who: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", WHAT_OPENMP_READ, who],
            env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    assert "GOMP_SPINCOUNT = '0'" in openmp_s_settings("ours")
    assert "GOMP_SPINCOUNT = '0'" not in openmp_s_settings("nobody's")
