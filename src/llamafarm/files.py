"""The one file layer: what is written is complete or absent.

A file is written aside, fsynced and renamed; a directory likewise, with the parent fsynced after
the rename.
Modes follow the umask. Nothing else in the program opens an output file for writing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

_STAGE_PREFIX = ".tmp-"


def fsync_directory(directory: Path) -> None:
    """Make renames and new names inside a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Create a new file with this content and fsync it; an existing file or link of that name is an
    error.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def append_stream(path: Path) -> Iterator[BinaryIO]:
    """Write at the end of a file, creating it where there is none, and fsync it when the block
    ends; a link of that name is an error.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    with os.fdopen(descriptor, "ab") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Replace a file: readers see the old content or the new, never a part."""
    aside = path.with_name(f"{_STAGE_PREFIX}{path.name}-{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        write_bytes(aside, data)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """As write_bytes_atomic, UTF-8."""
    write_bytes_atomic(path, text.encode("utf-8"))


def to_json_bytes(value: Mapping[str, Any]) -> bytes:
    """Readable JSON; a non-finite number is an error here, because other readers would refuse the
    file.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # A file's name need not be UTF-8: `\udcff` is how JSON writes such a byte.
    return (text + "\n").encode("utf-8", "backslashreplace")


def write_json_atomic(path: Path, value: Mapping[str, Any]) -> None:
    """As write_bytes_atomic, as JSON."""
    write_bytes_atomic(path, to_json_bytes(value))


@contextlib.contextmanager
def staged_directory(final: Path) -> Iterator[Path]:
    """A directory beside `final` to write into; it takes the name `final` when the block ends
    without an error.

    A directory that has the name already gives way to the new one. An error removes the staged
    directory and
    leaves everything as it was.
    """
    stage = final.with_name(f"{_STAGE_PREFIX}{final.name}-{os.getpid()}")
    old = final.with_name(f"{_STAGE_PREFIX}old-{final.name}-{os.getpid()}")
    for left_over in (stage, old):
        shutil.rmtree(left_over, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        yield stage
        fsync_directory(stage)
        if final.exists():
            final.rename(old)
        stage.rename(final)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    fsync_directory(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_stale_stages(directory: Path) -> tuple[Path, ...]:
    """Remove what an interrupted write left in a directory that only this process may write to."""
    stale = tuple(sorted(directory.glob(f"{_STAGE_PREFIX}*"))) if directory.is_dir() else ()
    for path in stale:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return stale
