"""A run that crashed is started again, and one that ended by a decision is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamafarm.training.supervise import resuming, supervise, without_restarts

# Does the next thing of a list each time it is started, and writes down how it was started.
_CHILD = """
import os, pathlib, sys, time
log = pathlib.Path(sys.argv[1])
turn = log.read_text().count("\\n")
with log.open("a") as file:
    file.write(" ".join(sys.argv[3:]) + "\\n")
act = sys.argv[2].split(",")[turn]
if act == "wait":
    time.sleep(60)
if act.startswith("-"):
    os.kill(os.getpid(), -int(act))
sys.exit(int(act))
"""


def child(tmp_path: Path, acts: str) -> tuple[list[str], Path]:
    log = tmp_path / "log"
    log.touch()
    return [sys.executable, "-c", _CHILD, str(log), acts, "train", "--overwrite"], log


def starts(log: Path) -> list[str]:
    return log.read_text().splitlines()


@pytest.mark.parametrize(
    ("acts", "expected", "num_starts"),
    [
        ("0", 0, 1),
        ("-9,-11,0", 0, 3),
        ("70,0", 0, 2),
        ("1", 1, 1),
        ("2", 2, 1),
        ("3", 3, 1),
        ("143", 143, 1),
        ("-9,-9,-9,-9", 137, 4),
    ],
)
def test_only_a_crash_is_started_again_and_at_most_so_often(
    acts: str, expected: int, num_starts: int, tmp_path: Path
) -> None:
    command, log = child(tmp_path, acts)
    said: list[str] = []
    pauses: list[float] = []
    code = supervise(command, max_restarts=3, say=said.append, pause=pauses.append)
    assert code == expected
    assert len(starts(log)) == num_starts
    assert len(said) == len(pauses) == num_starts - 1
    assert pauses == [2.0, 4.0, 8.0][: num_starts - 1]


def test_a_restart_resumes_and_no_longer_overwrites(tmp_path: Path) -> None:
    command, log = child(tmp_path, "-9,-9,0")
    said: list[str] = []
    supervise(command, max_restarts=3, say=said.append, pause=lambda seconds: None)
    assert starts(log) == ["train --overwrite", "train --resume", "train --resume"]
    assert said[0] == (
        "the run was killed by SIGKILL; going on from its last checkpoint in 2 s (restart 1 of 3)"
    )


def test_a_run_that_was_resumed_is_resumed_once() -> None:
    assert resuming(["train", "--resume", "--set", "a=1"]) == ["train", "--set", "a=1", "--resume"]


@pytest.mark.parametrize(
    "given", [["--max-restarts", "3"], ["--max-restarts=3"], ["--max-restarts", "3"] * 2, []]
)
def test_the_run_itself_is_started_without_restarts(given: list[str]) -> None:
    argv = ["--strategy", "a", *given, "--output", "b"]
    assert without_restarts(argv) == ["--strategy", "a", "--output", "b"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_goes_to_the_run_and_ends_the_restarts(
    number: signal.Signals, tmp_path: Path
) -> None:
    command, log = child(tmp_path, "wait,wait")
    script = (
        "import sys; from llamafarm.training.supervise import supervise; "
        "sys.exit(supervise(sys.argv[1:], max_restarts=3, say=lambda text: None))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *command], stderr=subprocess.DEVNULL, env=os.environ
    )
    deadline = time.monotonic() + 60
    while not starts(log):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.send_signal(number)
    # SIGINT ends a Python program with KeyboardInterrupt: it re-raises the signal, or exits 130.
    assert parent.wait(60) == 128 + number
    assert len(starts(log)) == 1
