"""Checkpoints: a directory that is complete or absent, and says so itself.

Written aside, every file fsynced, `manifest.json` (name, size, SHA-256 of each file) last, renamed,
the parent
fsynced; only then are older ones rotated. A checkpoint whose manifest does not verify does not
exist for resume.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import RunError
from llamafarm.files import fsync_directory, staged_directory, to_json_bytes, write_bytes

MANIFEST = "manifest.json"
_SCHEMA = 1
_NAME = re.compile(r"^checkpoint-(\d+)$")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint directory by its step; whether it verifies is a separate question."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class WrittenCheckpoint:
    """What a save did."""

    checkpoint: Checkpoint
    num_bytes: int
    seconds: float


def write_checkpoint(
    checkpoints: Path, step: int, files: Iterable[tuple[str, bytes]]
) -> WrittenCheckpoint:
    """Write `checkpoint-<step>` from (name, content) pairs, which are taken one at a time.

    An existing checkpoint of that step is replaced. Raises RunError when the disk refuses; nothing
    half-written stays.
    """
    started = time.monotonic()
    final = checkpoints / f"checkpoint-{step}"
    checkpoints.mkdir(exist_ok=True)
    try:
        with staged_directory(final) as stage:
            entries = [_write_entry(stage, name, data) for name, data in files]
            manifest = {"schema": _SCHEMA, "step": step, "files": entries}
            write_bytes(stage / MANIFEST, to_json_bytes(manifest))
    except OSError as error:
        raise RunError(
            f"checkpoint-{step} could not be written to {checkpoints}: {error.strerror}",
            hint="free some disk space and go on with --resume: earlier checkpoints are untouched",
        ) from error
    total = sum(entry["size"] for entry in entries)
    return WrittenCheckpoint(Checkpoint(step, final), total, time.monotonic() - started)


def _write_entry(stage: Path, name: str, data: bytes) -> dict[str, Any]:
    write_bytes(stage / name, data)
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def list_checkpoints(checkpoints: Path) -> tuple[Checkpoint, ...]:
    """All directories named like a checkpoint, oldest first."""
    if not checkpoints.is_dir():
        return ()
    found = ((_NAME.match(path.name), path) for path in checkpoints.iterdir() if path.is_dir())
    return tuple(sorted((Checkpoint(int(m[1]), p) for m, p in found if m), key=lambda c: c.step))


def verify_checkpoint(path: Path) -> str:
    """Why the checkpoint cannot be used; empty when every file is what its manifest says."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        entries = [(str(e["name"]), int(e["size"]), str(e["sha256"])) for e in manifest["files"]]
    except FileNotFoundError:
        return f"it has no {MANIFEST}: the save was not finished"
    except (ValueError, KeyError, TypeError):
        return f"its {MANIFEST} cannot be read"
    for name, size, digest in entries:
        file = path / name
        if Path(name).name != name or not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
        if _sha256(file) != digest:
            return f"{name} was changed after it was written (its SHA-256 differs)"
    return ""


def newest_valid(checkpoints: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest checkpoint that verifies, and a line for each newer one that was passed over."""
    passed_over: list[str] = []
    for checkpoint in reversed(list_checkpoints(checkpoints)):
        fault = verify_checkpoint(checkpoint.path)
        if not fault:
            return checkpoint, tuple(passed_over)
        passed_over.append(f"{checkpoint.path.name} cannot be used: {fault}")
    return None, tuple(passed_over)


def rotate(checkpoints: Path, *, limit: int, protected: Iterable[int]) -> tuple[Checkpoint, ...]:
    """Remove the oldest checkpoints until `limit` are left, never a protected step. Returns what
    was removed.
    """
    safe = set(protected)
    existing = list_checkpoints(checkpoints)
    ordinary = [c for c in existing if c.step not in safe]
    keep = max(0, limit - (len(existing) - len(ordinary)))
    newest_first = sorted(ordinary, key=lambda c: c.step, reverse=True)
    removed = tuple(newest_first[keep:])
    for checkpoint in removed:
        # Without its manifest it is no checkpoint any more, should the removal be cut short.
        (checkpoint.path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(checkpoint.path)
    if removed:
        fsync_directory(checkpoints)
    return removed


def checkpoint_files(path: Path, *, leave_out: Iterable[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a checkpoint's files, one at a time, as the manifest lists them."""
    omitted = set(leave_out)
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    for entry in manifest["files"]:
        if entry["name"] not in omitted:
            yield entry["name"], (path / entry["name"]).read_bytes()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
