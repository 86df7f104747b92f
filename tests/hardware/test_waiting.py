from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llamafarm.hardware.waiting import sleep_soon

THEIRS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
WHAT_OPENMP_READ = """
import sys
if sys.argv[1] == "ours":
    from llamafarm.hardware.waiting import sleep_soon
    sleep_soon()
import torch
"""


@pytest.mark.parametrize(
    ("theirs", "spins"), [({"OMP_WAIT_POLICY": "ACTIVE"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")]
)
def test_what_the_user_has_set_stays(
    theirs: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in THEIRS:
        monkeypatch.delenv(name, raising=False)
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    sleep_soon()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU OpenMP comes with Linux")
def test_openmp_reads_it_although_it_is_set_by_the_process_itself() -> None:
    def openmp_s_settings(who: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k not in THEIRS}
        done = subprocess.run(
            [sys.executable, "-c", WHAT_OPENMP_READ, who],
            env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    assert "GOMP_SPINCOUNT = '1000'" in openmp_s_settings("ours")
    assert "GOMP_SPINCOUNT = '1000'" not in openmp_s_settings("nobody's")
