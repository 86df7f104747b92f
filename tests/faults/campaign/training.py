"""Runs of the workplace, by the zygote or by the console command."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.e2e.commands import COMMAND, environment
from tests.faults.campaign.outcome import (
    Reference,
    check_finished,
    last_lines,
    reference_of,
    unseen,
)
from tests.faults.campaign.shim import Shim, read_log
from tests.faults.campaign.together import at_once
from tests.faults.campaign.workplace import Workplace
from tests.faults.campaign.zygote import PATIENCE_SECONDS, Child, shared_zygote

# One thread is part of a run's identity. The command takes the place of this process.
_ON_ONE_CORE = (
    "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def start(
    place: Workplace, argv: Sequence[str], before: Callable[[], object] | None = None
) -> Child:
    """A run in the workplace."""
    return shared_zygote().start(argv, place.root, place.env, before)


def train_reference(place: Workplace, strategy: str) -> Reference:
    """The run that nothing happens to; its operations are recorded."""
    name = f"reference-{strategy}"
    log = place.root / f"{name}.log"
    started = time.monotonic()
    child = start(place, place.train(strategy, name), Shim(place.out(name), log))
    code = child.wait()
    if code:
        raise RuntimeError(f"the reference run ended with exit code {code}\n{child.stderr}")
    seconds = time.monotonic() - started
    operations, _ = read_log(log)
    if missed := unseen(place.out(name), operations):
        raise RuntimeError(f"written past the shim: {', '.join(missed)}")
    return reference_of(place.out(name), seconds, operations)


def train_references(place: Workplace, strategies: Sequence[str]) -> dict[str, Reference]:
    """By strategy; a few at a time."""
    shared_zygote()
    with ThreadPoolExecutor(at_once()) as pool:
        references = pool.map(partial(train_reference, place), strategies)
        return dict(zip(strategies, references, strict=True))


def resume_to_the_end(
    place: Workplace, strategy: str, name: str, reference: Reference, *, console: bool = False
) -> str:
    """--resume, and nothing else: why the run was not then as if nothing had happened to it; empty
    when it was.
    """
    argv = place.train(strategy, name, "--resume")
    if console:
        code, stderr = run_console(place, argv)
    else:
        child = start(place, argv)
        code, stderr = child.wait(), child.stderr
    if code:
        return f"--resume: exit {code}: {last_lines(stderr)}"
    return check_finished(place.out(name), reference)


def console_line(argv: Sequence[str]) -> list[str]:
    """The real command as a new process, on one core as the children of the zygote are."""
    return [sys.executable, "-c", _ON_ONE_CORE, *COMMAND, *argv]


def run_console(place: Workplace, argv: Sequence[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    done = subprocess.run(
        console_line(argv),
        cwd=place.root,
        env=environment(**place.env),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stderr


def copy_of(directory: Path, to: Path) -> None:
    """A run directory as it is now, elsewhere."""
    shutil.copytree(directory, to, symlinks=True)
