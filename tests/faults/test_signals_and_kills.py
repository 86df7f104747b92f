"""Real signals to real processes: nothing is lost, and the end result is bitwise the same."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from tests.e2e.commands import read_events, run, run_until, steps_done
from tests.training.runs import hash_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_run_stopped_by_a_signal_resumes_to_the_same_weights(
    sent: signal.Signals, code: int, workplace: Path, finished: Path
) -> None:
    out = workplace / "runs" / sent.name
    command = ["train", "--strategy", "tiny", "--output", str(out)]
    stopped, error = run_until(command, workplace, lambda: steps_done(out) >= 3, sent)
    assert stopped == code, error
    status = json.loads((out / "run.json").read_text())["status"]
    if sent is not signal.SIGKILL:
        assert "--resume" in error
        assert "Traceback" not in error
        assert status == "interrupted"
    run(*command, "--resume", cwd=workplace)
    assert hash_of(out / "final_model") == hash_of(finished / "final_model")
    steps = [e["step"] for e in read_events(out) if e["event"] == "step"]
    assert steps == [e["step"] for e in read_events(finished) if e["event"] == "step"]
    assert json.loads((out / "run.json").read_text())["status"] == "completed"


def test_a_killed_run_starts_itself_again_when_it_may(workplace: Path, finished: Path) -> None:
    out = workplace / "runs" / "restarted"
    command = ["train", "--strategy", "tiny", "--output", str(out), "--max-restarts", "2"]
    killed: list[int] = []

    def kill_the_run(stop: threading.Event) -> None:
        while not stop.wait(0.01):
            if steps_done(out) >= 3:
                killed.append(int((out / ".lock").read_text().split()[1]))
                os.kill(killed[0], signal.SIGKILL)
                return

    stop = threading.Event()
    killer = threading.Thread(target=kill_the_run, args=[stop])
    killer.start()
    try:
        done = run(*command, cwd=workplace)
    finally:
        stop.set()
        killer.join()
    assert killed
    assert "killed by SIGKILL" in done.stderr
    assert "restart 1 of 2" in done.stderr
    assert hash_of(out / "final_model") == hash_of(finished / "final_model")


def test_resume_with_nothing_to_resume_says_so_and_starts(workplace: Path, finished: Path) -> None:
    out = workplace / "runs" / "fresh"
    done = run("train", "--strategy", "tiny", "--output", str(out), "--resume", cwd=workplace)
    assert "no checkpoint" in done.stderr
    assert hash_of(out / "final_model") == hash_of(finished / "final_model")
