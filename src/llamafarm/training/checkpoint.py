"""Checkpoints: a directory that is complete or absent, and says so itself.

Written aside, every file fsynced, `manifest.json` (name, size, SHA-256 of each file) last, renamed,
the parent fsynced; only then are older ones rotated. A checkpoint that does not verify does not
exist for resume: its directory holds the files of the manifest, each as it was written, and no
other. Only hidden files are left alone: systems make such by themselves, and no reader takes them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import RunError
from llamafarm.files import (
    fsync_directory,
    make_directory,
    staged_directory,
    to_json_bytes,
    write_bytes,
)

MANIFEST = "manifest.json"
STATE_FILE = "trainer_state.json"
_SCHEMA = 1
_NAME = re.compile(r"checkpoint-(\d+)")
_MAX_DIGITS = 15
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK_BYTES = 1 << 20
_MAX_MANIFEST_BYTES = 1 << 20
# For the manifest, and for what the file system itself needs.
_RESERVE_BYTES = 1 << 20


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


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did. failed: a line for each thing that could not be removed."""

    removed: tuple[Checkpoint, ...] = ()
    failed: tuple[str, ...] = ()


class SaveFailed(RunError):  # noqa: N818  # what happened, as in the message
    """The disk refused a checkpoint. Nothing of it is left, and earlier ones are untouched."""


def write_checkpoint(
    checkpoints: Path,
    step: int,
    files: Iterable[tuple[str, bytes | memoryview]],
    *,
    expected_bytes: int = 0,
) -> WrittenCheckpoint:
    """Write `checkpoint-<step>` from (name, content) pairs, which are taken one at a time.

    expected_bytes: how large it will about be; nothing is written where the disk has no room for
    that much (0: not known). An existing checkpoint of that step is replaced. Raises SaveFailed
    when the disk refuses; nothing half-written stays.
    """
    started = time.monotonic()
    final = checkpoint_of(checkpoints, step)
    entries: list[dict[str, Any]] = []
    num_bytes = 0
    try:
        make_directory(checkpoints)
        _require_room(checkpoints, expected_bytes)
        with staged_directory(final) as stage:
            for name, data in files:
                num_bytes += memoryview(data).nbytes
                entries.append(_write_entry(stage, name, data))
            manifest = {"schema": _SCHEMA, "step": step, "files": entries}
            write_bytes(stage / MANIFEST, to_json_bytes(manifest))
    except OSError as error:
        raise save_failed(final, error, max(num_bytes, expected_bytes)) from error
    return WrittenCheckpoint(Checkpoint(step, final), num_bytes, time.monotonic() - started)


def _write_entry(stage: Path, name: str, data: bytes | memoryview) -> dict[str, Any]:
    if not _is_plain(name):
        raise ValueError(f"{name!r} cannot be the name of a file in a checkpoint")
    write_bytes(stage / name, data)
    size = memoryview(data).nbytes
    return {"name": name, "size": size, "sha256": hashlib.sha256(data).hexdigest()}


def _require_room(directory: Path, expected_bytes: int) -> None:
    free = free_bytes(directory)
    if expected_bytes and free is not None and free < expected_bytes + _RESERVE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def free_bytes(directory: Path) -> int | None:
    """For anybody but root; None where the file system does not say."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def save_failed(final: Path, error: OSError, num_bytes: int) -> SaveFailed:
    """Why a checkpoint is not there, for the reader. num_bytes: its size, as far as known."""
    free = free_bytes(final.parent)
    room = f"at least {num_bytes + _RESERVE_BYTES:,} bytes needed"
    if free is not None:
        room += f", {free:,} free"
    return SaveFailed(
        f"{final.name} could not be written: {error.strerror or error}: "
        f"{error.filename or final} ({room})",
        hint="free some disk space: earlier checkpoints are untouched, and --resume goes on from "
        "the newest",
    )


def list_checkpoints(checkpoints: Path) -> tuple[Checkpoint, ...]:
    """All directories with the name of a checkpoint, oldest first. Raises RunError where they
    cannot be listed.
    """
    with _listing(checkpoints):
        return tuple(c for c in _candidates(checkpoints) if _has_its_place(c.path))


def _candidates(checkpoints: Path) -> list[Checkpoint]:
    """Everything that has a name like a checkpoint's, by number."""
    if not checkpoints.is_dir():
        return []
    names = [_NAME.fullmatch(path.name) for path in checkpoints.iterdir()]
    found = [Checkpoint(int(m[1]), checkpoints / m[0]) for m in names if m]
    return sorted(found, key=lambda c: (c.step, c.path.name))


@contextlib.contextmanager
def _listing(checkpoints: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{checkpoints} cannot be read: {error.strerror or error}",
            hint="see that the disk is whole and the directory readable, then go on with --resume",
        ) from error


def verify_checkpoint(path: Path) -> str:
    """Why the checkpoint cannot be used; empty when every file is what its manifest says, and
    nothing else is there. Reads every byte.
    """
    try:
        for entry in _entries(path):
            _check_content(path / entry.name, entry)
    except _Fault as fault:
        return str(fault)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return ""


def newest_valid(
    checkpoints: Path, *, also: Callable[[Path], str] = lambda path: ""
) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest checkpoint that verifies, and a line for each newer one that was passed over.

    also: what else may be wrong with one; empty: nothing. Raises RunError where they cannot be
    listed: to start again would then lose what is there.
    """
    with _listing(checkpoints):
        candidates = _candidates(checkpoints)
    passed_over: list[str] = []
    for checkpoint in reversed(candidates):
        fault = verify_checkpoint(checkpoint.path) or also(checkpoint.path)
        if not fault:
            return checkpoint, tuple(passed_over)
        passed_over.append(f"{checkpoint.path.name} cannot be used: {fault}")
    return None, tuple(passed_over)


def checkpoint_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return checkpoints / f"checkpoint-{step}"


def fault_of_step(checkpoints: Path, step: int) -> str:
    """Why the checkpoint of a step cannot be used; empty when it can."""
    path = checkpoint_of(checkpoints, step)
    return verify_checkpoint(path) if path.is_dir() else "it is not there"


def rotate(checkpoints: Path, *, limit: int, protected: Iterable[int]) -> Rotated:
    """Remove the oldest checkpoints until `limit` are left, never a protected step.

    The newest protected step is the one just saved: where it does not stand, nothing is removed.
    Later ones are what a resume passed over, and go first. What cannot be removed is no reason to
    stop a run.
    """
    safe = set(protected)
    newest = max(safe, default=0)
    existing = list_checkpoints(checkpoints)
    if safe and not _stands(checkpoints / f"checkpoint-{newest}"):
        return Rotated(failed=(f"nothing was removed: checkpoint-{newest} is not whole",))
    passed_over = [c for c in existing if safe and c.step > newest]
    ordinary = [c for c in existing if c.step not in safe and c not in passed_over]
    keep = max(0, limit - (len(existing) - len(passed_over) - len(ordinary)))
    removed: list[Checkpoint] = []
    failed: list[str] = []
    for checkpoint in (*passed_over, *ordinary[: max(0, len(ordinary) - keep)]):
        try:
            _remove(checkpoint.path)
            removed.append(checkpoint)
        except OSError as error:
            reason = error.strerror or error
            failed.append(f"{checkpoint.path.name} could not be removed: {reason}")
    with contextlib.suppress(OSError):
        fsync_directory(checkpoints)
    return Rotated(tuple(removed), tuple(failed))


def _remove(path: Path) -> None:
    # Without its manifest it is no checkpoint any more, should the removal be cut short.
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def checkpoint_files(path: Path, *, leave_out: Iterable[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a checkpoint's files, one at a time, as the manifest lists them.

    Raises RunError for what is not as it was written.
    """
    omitted = set(leave_out)
    try:
        for entry in _entries(path):
            if entry.name not in omitted:
                yield entry.name, _read_checked(path / entry.name, entry)
    except _Fault as fault:
        raise RunError(
            f"{path} cannot be used: {fault}",
            hint="--resume goes on from the newest checkpoint that is whole",
        ) from fault


class _Fault(Exception):  # noqa: N818  # of the checkpoint, not of the program
    """Why a checkpoint cannot be used."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file as the manifest has it. size: in bytes."""

    name: str
    size: int
    sha256: str


def _stands(path: Path) -> bool:
    """Whether all files are there in their sizes; their content is not read."""
    try:
        _entries(path)
    except (_Fault, OSError):
        return False
    return True


def _entries(path: Path) -> tuple[_Entry, ...]:
    """The files of the manifest: all of them are there in their sizes, and no other is."""
    # One that was copied elsewhere may have any name, and be a link.
    of_a_run = _NAME.fullmatch(path.name) is not None
    if of_a_run and path.is_symlink():
        raise _Fault("it is a symbolic link, which no step writes")
    if not path.is_dir():
        raise _Fault("it is not a directory")
    step, entries = _parse_manifest(_read_manifest(path))
    if of_a_run and not _has_its_place(path):
        raise _Fault("no step has such a name")
    if of_a_run and path.name != f"checkpoint-{step}":
        raise _Fault(f"its {MANIFEST} is of step {step}")
    for entry in entries:
        _check_size(path / entry.name, entry)
    expected = {MANIFEST, *(entry.name for entry in entries)}
    names = (file.name for file in path.iterdir())
    foreign = (name for name in names if name not in expected and not name.startswith("."))
    if name := min(foreign, default=""):
        raise _Fault(f"it holds {_shown(name)}, which its {MANIFEST} does not list")
    return entries


def _has_its_place(path: Path) -> bool:
    """Whether this is a directory with a name that a save gives."""
    digits = path.name.removeprefix("checkpoint-")
    named = len(digits) <= _MAX_DIGITS and path.name == f"checkpoint-{int(digits)}"
    return named and path.is_dir() and not path.is_symlink()


def _read_manifest(path: Path) -> bytes:
    if not os.path.lexists(path / MANIFEST):
        raise _Fault(f"it has no {MANIFEST}: the save was not finished")
    with _opened(path / MANIFEST) as descriptor:
        if os.fstat(descriptor).st_size > _MAX_MANIFEST_BYTES:
            raise _Fault(f"its {MANIFEST} has more than {_MAX_MANIFEST_BYTES:,} bytes")
        return b"".join(_blocks(descriptor))


def _parse_manifest(data: bytes) -> tuple[int, tuple[_Entry, ...]]:
    """The step and the files. Strict: what is not as this version writes it is a fault."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _unreadable("it is not JSON") from None
    if not isinstance(value, dict):
        raise _unreadable("it is not an object")
    schema, step, files = value.get("schema"), value.get("step"), value.get("files")
    if type(schema) is not int:
        raise _unreadable("it has no schema")
    if schema != _SCHEMA:
        raise _Fault(f"its {MANIFEST} has schema {schema}, and this version reads {_SCHEMA}")
    if type(step) is not int:
        raise _unreadable("it has no step")
    if not isinstance(files, list):
        raise _unreadable("it has no files")
    entries = tuple(_parse_entry(number, item) for number, item in enumerate(files, start=1))
    if len({entry.name for entry in entries}) < len(entries):
        raise _unreadable("it lists a file twice")
    return step, entries


def _parse_entry(number: int, item: object) -> _Entry:
    if not isinstance(item, dict):
        raise _unreadable(f"file {number} is not an object")
    name, size, sha256 = item.get("name"), item.get("size"), item.get("sha256")
    if not isinstance(name, str) or not _is_plain(name):
        raise _unreadable(f"file {number} has no name of a file beside it")
    if type(size) is not int or size < 0:
        raise _unreadable(f"file {number} has no size")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _unreadable(f"file {number} has no SHA-256")
    return _Entry(name, size, sha256)


def _unreadable(why: str) -> _Fault:
    return _Fault(f"its {MANIFEST} cannot be read: {why}")


def _is_plain(name: str) -> bool:
    """Whether it names a file in the directory itself."""
    reserved = ("", ".", "..", MANIFEST)
    return name not in reserved and name.isprintable() and "/" not in name


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _check_size(file: Path, entry: _Entry) -> None:
    with _opened(file) as descriptor:
        size = os.fstat(descriptor).st_size
    if size != entry.size:
        raise _Fault(f"{entry.name} has {size:,} bytes instead of {entry.size:,} ({MANIFEST})")


def _check_content(file: Path, entry: _Entry) -> None:
    digest = hashlib.sha256()
    with _opened(file) as descriptor:
        for block in _blocks(descriptor):
            digest.update(block)
    if digest.hexdigest() != entry.sha256:
        raise _changed(entry)


def _read_checked(file: Path, entry: _Entry) -> bytes:
    with _opened(file) as descriptor:
        data = b"".join(_blocks(descriptor))
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise _changed(entry)
    return data


def _changed(entry: _Entry) -> _Fault:
    return _Fault(
        f"{entry.name} was changed after it was written (its SHA-256 is not that of {MANIFEST})"
    )


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    """A descriptor of a regular file; whatever goes wrong is a fault that names it."""
    try:
        # A pipe in the place of a file would be waited for.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _Fault(f"{file.name} is not a file")
            yield descriptor
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise _Fault(f"{file.name} is missing") from None
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise _Fault(f"{file.name} cannot be read: {reason}") from error


def _blocks(descriptor: int) -> Iterator[bytes]:
    while block := os.read(descriptor, _BLOCK_BYTES):
        yield block
