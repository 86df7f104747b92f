"""TRL's environment is pinned to what this project runs on."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from bench.environment import trl_python, trl_requirements


def test_torch_is_the_same_release_without_its_local_tag() -> None:
    (torch,) = [line for line in trl_requirements() if line.startswith("torch==")]
    assert torch == f"torch=={version('torch').split('+')[0]}"


def test_an_environment_that_fits_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".requirements").write_text("\n".join(trl_requirements()))
    assert trl_python(tmp_path) == tmp_path / "bin" / "python"
    assert sys.executable != str(trl_python(tmp_path))
