"""Command lines as the seed has them, typed in this process or in a shell."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llamafarm.cli.main import main
from llamafarm.hardware.facts import Hardware
from llamafarm.planning.plan import TrainingPlan
from llamafarm.training.run import RunInputs
from tests.hardware.recorded import LAPTOP

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


def arguments(line: str) -> list[str]:
    """What a shell makes of a line of the seed, without `uv run`."""
    words = shlex.split(line.replace("\\\n", " "))
    return words[2:] if words[:2] == ["uv", "run"] else words


def type_in(line: str, *more: str) -> Done:
    """A `cli.py` line of the seed, or the words after it, in this process. more: further words."""
    words = arguments(line)
    words = words[2:] if words[:2] == ["python", "cli.py"] else words
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, *more])
    return Done(code, out.getvalue(), err.getvalue())


def run_in_shell(
    line: str, *more: str, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A `python …` line of the seed as a process of its own."""
    launcher, *words = arguments(line)
    assert launcher == "python"
    return subprocess.run(
        [sys.executable, *words, *more],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "100", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


class _Planned(BaseException):
    """Ends a `train` where the first step would be."""

    def __init__(self, inputs: RunInputs) -> None:
        super().__init__("planned")
        self.inputs = inputs


def _stop_here(inputs: RunInputs, *_: object) -> None:
    raise _Planned(inputs)


def inputs_of(line: str, *more: str, hardware: Hardware = LAPTOP) -> RunInputs:
    """What a `train` line would train, on a recorded machine: everything but the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llamafarm.training.run.run", _stop_here)
        patch.setattr("llamafarm.hardware.probe.probe", lambda: hardware)
        with pytest.raises(_Planned) as stopped:
            done = type_in(line, *more)
            pytest.fail(f"exit {done.code}\n{done.err}")
    return stopped.value.inputs


def plan_of(line: str, *more: str, hardware: Hardware = LAPTOP) -> TrainingPlan:
    """The plan of a `train` line on a recorded machine."""
    return inputs_of(line, *more, hardware=hardware).plan


def refusal_of(line: str, *more: str, hardware: Hardware = LAPTOP, code: int = 2) -> str:
    """What a person reads who typed something wrong: exit 2, no traceback, and nothing begun.

    code: 3 where a gate refuses what was typed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llamafarm.training.run.run", _stop_here)
        patch.setattr("llamafarm.hardware.probe.probe", lambda: hardware)
        try:
            done = type_in(line, *more)
        except _Planned:
            pytest.fail("it would have trained")
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert not Path("fine_tuned_models").exists()
    return done.err


def write_rows(path: Path, count: int = 60, first: int = 0) -> Path:
    """Questions and answers, no two alike, none longer than about twenty tokens. first: the number
    that the first one asks about; files with other numbers say other things.
    """
    rows = [
        {"question": f"What is {i} plus one?", "answer": f"It is {i + 1}."}
        for i in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def events_of(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in metrics.jsonl."""
    lines = (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@contextlib.contextmanager
def changed_directory(path: Path) -> Iterator[Path]:
    """The working directory of a fixture that outlives a test."""
    with contextlib.chdir(path):
        yield path
