"""The run directory: its layout, its lock, and what may be in it when a run starts.

The lock is the kernel's (flock), so a crash leaves nothing to clean up. The line in the file only
tells others who holds it: the holder writes it when it has the lock, and clears it when it leaves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from llamafarm.errors import OutputError, RunError
from llamafarm.files import (
    fsync_directory,
    is_open_file,
    make_directory,
    remove_stale_stages,
    write_json_atomic,
)

_LOCK = ".lock"
_FILES = (
    "run.json",
    "strategy.yaml",
    "metrics.jsonl",
    "summary.json",
    "comparison.json",
    "report.html",
    "README.md",
)
_DIRECTORIES = (
    "checkpoints",
    "evaluations",
    "final_model",
    "logs",
    "plots",
    "ollama",
    "gguf",
    "llamafactory",
)

_HOLDER = re.compile(r"process ([0-9]{1,9}) on (.*)\n")
# How long a holder may take to write its line, and a check to let go of the lock.
_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths inside one run directory (the contract, section 4)."""

    root: Path

    @property
    def run_file(self) -> Path:
        """Id, status, versions, decisions, forecast."""
        return self.root / "run.json"

    @property
    def strategy_file(self) -> Path:
        """The resolved strategy."""
        return self.root / "strategy.yaml"

    @property
    def metrics_file(self) -> Path:
        """One event a line."""
        return self.root / "metrics.jsonl"

    @property
    def summary_file(self) -> Path:
        """The numbers of the run."""
        return self.root / "summary.json"

    @property
    def comparison_file(self) -> Path:
        """Base, best and last on the same rows."""
        return self.root / "comparison.json"

    @property
    def evaluations(self) -> Path:
        """The loss of every row: of the base, of the best step and of the last."""
        return self.root / "evaluations"

    @property
    def checkpoints(self) -> Path:
        """Resume points."""
        return self.root / "checkpoints"

    @property
    def final_model(self) -> Path:
        """What every later command uses."""
        return self.root / "final_model"

    @property
    def logs(self) -> Path:
        """TensorBoard event files."""
        return self.root / "logs"

    def read_run(self) -> dict[str, Any]:
        """What run.json holds; empty when there is none, or when it is not JSON."""
        try:
            value = json.loads(self.run_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def open_run_directory(root: Path, *, resume: bool, overwrite: bool) -> Iterator[RunDirectory]:
    """Lock the directory for one run, and make sure that nothing of an earlier run is lost unasked.

    What a killed run left half-done is undone. Raises OutputError when another run holds it, when
    it is not empty (without resume or overwrite), when something in it is a link, or when it cannot
    be written; RunError when the disk is full.
    """
    with _reporting(root):
        make_directory(root)
    with _held(root):
        with _reporting(root):
            if not (resume or overwrite):
                refuse_non_empty(root)
            remove_stale_stages(root)
            if overwrite and not resume:
                _remove_run(root)
            _refuse_links(root)
            for name in ("checkpoints", "evaluations"):
                remove_stale_stages(root / name)
        yield RunDirectory(root)


def check_output_directory(root: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse early what open_run_directory would refuse, before model and data are read. Writes
    nothing.
    """
    if not root.exists():
        return
    if not root.is_dir():
        raise OutputError(
            f"the output directory {root} is a file", hint="choose another one with --output DIR"
        )
    with _reporting(root):
        if os.path.lexists(root / _LOCK):
            os.close(_locked(root, os.O_RDONLY, fcntl.LOCK_SH))
        if not (resume or overwrite):
            refuse_non_empty(root)
        if resume:
            _refuse_links(root)


def refuse_non_empty(root: Path) -> None:
    """Raises OutputError when the directory holds anything but a lock and what a killed write
    left.
    """
    found = sorted(
        p.name for p in root.iterdir() if p.name != _LOCK and not p.name.startswith(".tmp-")
    )
    if found:
        raise OutputError(
            f"the output directory {root} is not empty (it holds {', '.join(found[:6])})",
            hint="add --resume to go on with that run, --overwrite to start again, "
            "or --output DIR for another place",
        )


def _refuse_links(root: Path) -> None:
    """What a run writes stays inside its directory, which itself may be reached by a link."""
    for name in (*_FILES, *_DIRECTORIES):
        _refuse_link(root / name)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise OutputError(
            f"{path} is a link to {path.readlink()}: a run writes nowhere but into its own "
            "directory",
            hint="remove the link, or choose another directory with --output DIR (which may itself "
            "be a link)",
        )


@contextlib.contextmanager
def _reporting(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"the output directory {root} cannot be written"
        if error.filename and Path(os.fsdecode(error.filename)) != root:
            what = f"{os.fsdecode(error.filename)} cannot be written"
        what += f": {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some disk space, or choose another directory with --output DIR"
            raise RunError(what, hint=hint) from error
        raise OutputError(what, hint="choose another one with --output DIR") from error


@contextlib.contextmanager
def _held(root: Path) -> Iterator[None]:
    """Hold the lock, with this process as its holder."""
    with _reporting(root):
        descriptor = _locked(root, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
    try:
        with _reporting(root):
            _write_holder(descriptor, root / _LOCK)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _write_holder(descriptor: int, path: Path) -> None:
    line = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, line, 0)
    except OSError as error:
        error.filename = str(path)
        raise


def _locked(root: Path, flags: int, kind: int) -> int:
    """The descriptor of the lock file, locked. Raises OutputError that names the holder when
    another process has it.

    Whoever only checks holds it for a moment and writes no line, so a lock without a living holder
    is tried again for a while.
    """
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    path = root / _LOCK
    while True:
        _refuse_link(path)
        descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o666)
        try:
            _refuse_other_names(descriptor, path)
            locked = _try_lock(descriptor, kind, root)
            if locked and is_open_file(descriptor, path):
                return descriptor
            # A lock that was got on a file that is gone tells nothing about the one in its place.
            holder = "" if locked else _holder(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if holder or time.monotonic() > give_up_at:
            raise OutputError(
                f"the output directory {root} is in use by {holder or 'another process'}",
                hint="wait for that run, or choose another directory with --output DIR",
            )
        time.sleep(_PAUSE_SECONDS)


def _refuse_other_names(descriptor: int, path: Path) -> None:
    """The holder empties the file: it must not be another one as well, under another name."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise OutputError(
            f"{path} is not a lock file of llamafarm: it has another name elsewhere, or is no file",
            hint="remove it, or choose another directory with --output DIR",
        )


def _try_lock(descriptor: int, kind: int, root: Path) -> bool:
    """Whether this process has the lock now. Raises OutputError where there are no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OutputError(
            f"the file system of {root} has no locks ({error.strerror or error}), so nothing would "
            "keep a second run out of it",
            hint="choose a directory on a local disk with --output DIR",
        ) from error
    return True


def _holder(descriptor: int) -> str:
    """Who holds the lock; empty where the line is not written yet, or is of a process that died."""
    line = os.pread(descriptor, 400, 0).decode("utf-8", "replace")
    match = _HOLDER.fullmatch(line)
    if match is None:
        return ""
    gone = match[2] == socket.gethostname() and not psutil.pid_exists(int(match[1]))
    return "" if gone else line.strip()


def _remove_run(root: Path) -> None:
    """Only the names that a run writes: files that a person put beside them stay.

    Checkpoints go first, so that a removal cut short leaves nothing that --resume would go on from
    without its metrics.
    """
    for name in _DIRECTORIES:
        path = root / name
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            stage = root / f".tmp-{name}-{os.getpid()}"
            path.rename(stage)
            fsync_directory(root)
            shutil.rmtree(stage)
    for name in _FILES:
        (root / name).unlink(missing_ok=True)
    fsync_directory(root)


def write_run(directory: RunDirectory, values: dict[str, Any]) -> None:
    """Write run.json."""
    write_json_atomic(directory.run_file, values)
