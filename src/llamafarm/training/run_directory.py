"""The run directory: its layout, its lock, and what may be in it when a run starts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import OutputError
from llamafarm.files import fsync_directory, remove_stale_stages, write_json_atomic

_LOCK = ".lock"
_FILES = ("run.json", "strategy.yaml", "metrics.jsonl", "summary.json", "report.html", "README.md")
_DIRECTORIES = ("checkpoints", "final_model", "logs", "plots", "ollama", "gguf")


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
        except (FileNotFoundError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def open_run_directory(root: Path, *, resume: bool, overwrite: bool) -> Iterator[RunDirectory]:
    """Lock the directory for one run, and make sure that nothing of an earlier run is lost unasked.

    Raises OutputError when another run holds it, when it is not empty (without resume or
    overwrite),
    or when it cannot be written.
    """
    directory = RunDirectory(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise OutputError(
            f"the output directory {root} cannot be written: {error.strerror}",
            hint="choose another one with --output DIR",
        ) from error
    with os.fdopen(descriptor, "r+") as lock:
        _take_lock(lock.fileno(), root)
        os.ftruncate(lock.fileno(), 0)
        os.pwrite(lock.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        if not (resume or overwrite):
            refuse_non_empty(root)
        for part in (root, root / "checkpoints"):
            remove_stale_stages(part)
        if overwrite and not resume:
            _remove_run(directory)
        yield directory


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
    lock = root / _LOCK
    if lock.is_file():
        with lock.open("rb") as stream:
            _take_lock(stream.fileno(), root)
    if not (resume or overwrite):
        refuse_non_empty(root)


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


def _take_lock(descriptor: int, root: Path) -> None:
    """The kernel drops the lock when its holder dies, so a crash leaves nothing to clean up."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = (
            os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
        )
        raise OutputError(
            f"the output directory {root} is in use by {holder}",
            hint="wait for that run, or choose another directory with --output DIR",
        ) from error


def _remove_run(directory: RunDirectory) -> None:
    """Only the names that a run writes: files that a person put beside them stay."""
    for name in _FILES:
        (directory.root / name).unlink(missing_ok=True)
    for name in _DIRECTORIES:
        path = directory.root / name
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    fsync_directory(directory.root)


def write_run(directory: RunDirectory, values: dict[str, Any]) -> None:
    """Write run.json."""
    write_json_atomic(directory.run_file, values)
