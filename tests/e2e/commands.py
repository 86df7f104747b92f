"""The real command, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "llamafarm"]
PATIENCE_SECONDS = 480


def environment(**changes: str) -> dict[str, str]:
    """No network, no colours, lines of one width."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "100", **changes}


def run(
    *arguments: str, cwd: Path, code: int = 0, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run to the end and check the exit code, showing everything when it is another one."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def run_until(
    arguments: Sequence[str], cwd: Path, ready: Callable[[], bool], sent: signal.Signals
) -> tuple[int, str]:
    """Start, wait until ready() is true, send a signal: the exit code and stderr."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, "it never became ready"
            time.sleep(0.01)
        process.send_signal(sent)
        _, error = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, error


def steps_done(run_dir: Path) -> int:
    """The last step that metrics.jsonl tells of."""
    return max((e["step"] for e in read_events(run_dir) if e["event"] == "step"), default=0)


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    file = run_dir / "metrics.jsonl"
    if not file.exists():
        return []
    lines = file.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]
