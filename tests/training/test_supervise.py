"""A run that crashed is started again, and one that ended by a decision is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llamafarm.training import supervise as module
from llamafarm.training.run_directory import RunDirectory
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
if act.startswith("begin"):
    log.with_name("run.json").write_text('{"id": "new"}')
    act = act.removeprefix("begin")
if act.startswith("-"):
    os.kill(os.getpid(), -int(act))
sys.exit(int(act))
"""


def child(tmp_path: Path, acts: str, *flags: str) -> tuple[list[str], Path]:
    log = tmp_path / "log"
    log.touch()
    return [sys.executable, "-c", _CHILD, str(log), acts, "train", *flags], log


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
    code = supervise(
        command, RunDirectory(tmp_path), max_restarts=3, say=said.append, pause=pauses.append
    )
    assert code == expected
    assert len(starts(log)) == num_starts
    assert len(said) == num_starts - 1
    assert sum(pauses) == pytest.approx(sum([2.0, 4.0, 8.0][: num_starts - 1]))


@pytest.mark.parametrize("earlier", ['{"id": "old"}', ""])
def test_a_run_is_resumed_once_it_is_in_its_directory_and_till_then_it_overwrites(
    tmp_path: Path, earlier: str
) -> None:
    if earlier:
        (tmp_path / "run.json").write_text(earlier)
    command, log = child(tmp_path, "-9,begin-9,-9,0", "--overwrite")
    said: list[str] = []
    supervise(
        command, RunDirectory(tmp_path), max_restarts=3, say=said.append, pause=lambda seconds: None
    )
    assert starts(log) == ["train --overwrite"] * 2 + ["train --resume"] * 2
    assert said[:2] == [
        "the run was killed by SIGKILL; starting it again in 2 s (restart 1 of 3)",
        "the run was killed by SIGKILL; going on from its last checkpoint in 4 s (restart 2 of 3)",
    ]


def test_a_run_without_flags_never_goes_on_with_one_that_was_there(tmp_path: Path) -> None:
    command, log = child(tmp_path, "-9,0")
    (tmp_path / "run.json").write_text('{"id": "old"}')
    supervise(
        command, RunDirectory(tmp_path), max_restarts=3, say=print, pause=lambda seconds: None
    )
    assert starts(log) == ["train", "train"]


def test_a_run_without_flags_in_a_new_directory_is_resumed(tmp_path: Path) -> None:
    command, log = child(tmp_path, "-9,0")
    supervise(
        command, RunDirectory(tmp_path), max_restarts=3, say=print, pause=lambda seconds: None
    )
    assert starts(log) == ["train", "train --resume"]


def test_a_signal_while_the_run_is_started_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(module.subprocess, "Popen", Slow)
    command, _ = child(tmp_path, "wait")
    code = supervise(command, RunDirectory(tmp_path), max_restarts=3, say=print)
    assert code == 128 + signal.SIGTERM


def test_a_signal_in_a_pause_ends_it(tmp_path: Path) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            signal.raise_signal(signal.SIGTERM)

    command, log = child(tmp_path, "-9,0")
    code = supervise(command, RunDirectory(tmp_path), max_restarts=3, say=print, pause=nap)
    assert code == 128 + signal.SIGTERM
    assert (len(naps), len(starts(log))) == (2, 1)


def test_a_supervisor_in_another_thread_leaves_the_signals_alone(tmp_path: Path) -> None:
    command, _ = child(tmp_path, "3")
    with ThreadPoolExecutor() as pool:
        done = pool.submit(supervise, command, RunDirectory(tmp_path), max_restarts=0, say=print)
        assert done.result() == 3


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
        "import sys; from pathlib import Path; "
        "from llamafarm.training.run_directory import RunDirectory; "
        "from llamafarm.training.supervise import supervise; "
        "sys.exit(supervise(sys.argv[1:], RunDirectory(Path()), max_restarts=3, say=print))"
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
