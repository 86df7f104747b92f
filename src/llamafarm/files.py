"""The one file layer: what is written is complete or absent.

A file is written aside, fsynced and renamed; a directory likewise, with the parent fsynced after
the rename. Modes follow the umask. Beside this, only what grows line by line (metrics.jsonl, the
event files of TensorBoard) and the lock open a file of a run directory for writing.

Every change goes through a function of `os`, looked up when it is called, or through `exchange`: so
faults and crashes can be put at each of them. An OSError names the path that failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STAGE_PREFIX = ".tmp-"
# A stage ends with its process, so no stage is ever taken for a directory that was renamed aside.
_ASIDE = re.compile(r"\.tmp-(?P<name>.+)-[0-9]+\.old")
_BUFFER_BYTES = 1 << 16

# Of <linux/fs.h> and <sys/stdio.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def fsync_directory(directory: Path) -> None:
    """Make renames and new names inside a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _named(directory):
            os.fsync(descriptor)
    except OSError as error:
        # So say file systems that cannot be asked this of a directory.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def fsync_tree(directory: Path) -> None:
    """Make everything in a directory durable, whoever wrote it; links are not followed."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                _fsync_file(path)
        fsync_directory(Path(folder))


def make_directory(directory: Path) -> None:
    """Create a directory and the parents it lacks, durably; one that is there already is fine."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    try:
        directory.mkdir()
    except FileExistsError:
        if not directory.is_dir():
            raise
    fsync_directory(directory.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it, in one call where the disk takes it in one; nothing is copied."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.write(descriptor, rest)
        if written <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[written:]


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Create a new file with this content and fsync it; an existing file or link of that name is an
    error. A write that fails leaves no file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    try:
        with _named(path):
            write_all(descriptor, data)
            os.fsync(descriptor)
    except BaseException:
        _discard(path)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def append_stream(path: Path) -> Iterator[BinaryIO]:
    """Write at the end of a file, creating it where there is none, and fsync it when the block
    ends; a link of that name is an error.
    """
    raw = _AppendedFile(path)
    stream = io.BufferedWriter(raw, _BUFFER_BYTES)
    try:
        yield stream
        stream.flush()
        with _named(path):
            os.fsync(raw.fileno())
    except BaseException:
        # What is still in the buffer may not be written either: the first error is the one to tell.
        with contextlib.suppress(OSError):
            stream.close()
        raise
    stream.close()


class _AppendedFile(io.RawIOBase):
    """A file that is written to through os.write."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o666)
        self.seek(0, os.SEEK_END)

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def write(self, data: ReadableBuffer, /) -> int:
        with _named(self._path):
            return os.write(self._descriptor, data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


def write_bytes_atomic(
    path: Path, data: bytes | memoryview, *, stage_in: Path | None = None
) -> None:
    """Replace a file: readers see the old content or the new, never a part. A link of that name is
    replaced, not followed. stage_in: a directory of the same file system to write it in first, if
    not beside the file.
    """
    aside = (stage_in or path.parent) / f"{_STAGE_PREFIX}{path.name}-{os.getpid()}"
    _remove(aside)
    try:
        write_bytes(aside, data)
        aside.replace(path)
    except BaseException:
        _discard(aside)
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

    What has the name already gives way to the new directory, in one step where the kernel can swap
    two names. Only one process at a time may do this to one name. An error removes the staged
    directory and leaves everything as it was.
    """
    stage = final.with_name(f"{_STAGE_PREFIX}{final.name}-{os.getpid()}")
    make_directory(final.parent)
    _restore_asides(final.parent, only=final.name)
    # An earlier process may have had this number.
    for left_over in (stage, _aside_of(stage)):
        _remove(left_over)
    try:
        stage.mkdir()
        yield stage
        fsync_directory(stage)
        with _put_in_place(stage, final):
            fsync_directory(final.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            _restore_asides(final.parent, only=final.name)
        _discard(stage)
        raise
    # The new one stands: what is left of the old one is no reason to fail.
    for old in (stage, _aside_of(stage)):
        _discard(old)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, so that both are there at every moment. False where this system,
    or this file system, cannot.
    """
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, _RENAME_SWAP)
        else:
            failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    except AttributeError:  # a C library without the function
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


@contextlib.contextmanager
def _put_in_place(stage: Path, final: Path) -> Iterator[None]:
    """Give the stage the name; what had it is then called as the stage was. An error in the block
    undoes it.
    """
    replaces = os.path.lexists(final)
    _swap(stage, final) if replaces else stage.rename(final)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            _swap(stage, final) if replaces else final.rename(stage)
        raise


def _swap(stage: Path, final: Path) -> None:
    """Swap the two names, by way of a third where the kernel cannot do it in one step."""
    if exchange(stage, final):
        return
    aside = _aside_of(stage)
    final.rename(aside)
    # Killed here, the next process gives `aside` its name back.
    stage.rename(final)
    with contextlib.suppress(OSError):
        aside.rename(stage)


def _aside_of(stage: Path) -> Path:
    return stage.with_name(stage.name + ".old")


def _restore_asides(directory: Path, *, only: str | None = None) -> None:
    """Give back the names of what was renamed aside by a process that did not get further, where
    nothing has the name now. only: of this name.
    """
    newest_first = sorted(
        (path for path in directory.iterdir() if _ASIDE.fullmatch(path.name)),
        key=lambda path: path.lstat().st_mtime_ns,
        reverse=True,
    )
    for aside in newest_first:
        name = _ASIDE.sub(r"\g<name>", aside.name)
        if only in (None, name) and not os.path.lexists(directory / name):
            aside.rename(directory / name)
            fsync_directory(directory)


def remove_stale_stages(directory: Path) -> tuple[Path, ...]:
    """Undo what an interrupted write left in a directory that only this process may write to.
    Returns what was removed.

    A directory that had been renamed aside, and was not replaced, gets its name back; OSError where
    it cannot. The rest is removed; what cannot be removed stays, and only takes room.
    """
    if not directory.is_dir():
        return ()
    _restore_asides(directory)
    stale = sorted(directory.glob(f"{_STAGE_PREFIX}*"))
    for path in stale:
        _discard(path)
    return tuple(path for path in stale if not os.path.lexists(path))


def is_open_file(descriptor: int, path: Path) -> bool:
    """Whether the name still leads to this open file: it may have been removed, or replaced."""
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        with _named(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a directory, a file or a link, where there is one."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


def _discard(path: Path) -> None:
    """Remove as much of it as can be removed."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Descriptors have no names: an error gets that of the path."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
