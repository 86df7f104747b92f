"""Where derived models are kept, and how one gets there whole, once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from llamafarm.errors import LlamafarmError, OutputError, RunError
from llamafarm.files import (
    fsync_tree,
    is_open_file,
    make_directory,
    remove_stale_stages,
    staged_directory,
)


def cache_root() -> Path:
    """`LLAMAFARM_CACHE`, else the platform's cache directory; all in it can be made again."""
    override = os.environ.get("LLAMAFARM_CACHE")
    if override:
        return Path(override).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llamafarm"
    return _xdg("XDG_CACHE_HOME", ".cache") / "llamafarm"


def packages_root() -> Path:
    """Where `setup` installs optional packages: the user's data directory, never the Python
    environment.
    """
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "llamafarm" / "packages"
    return _xdg("XDG_DATA_HOME", ".local/share") / "llamafarm" / "packages"


def build_once(target: Path, build: Callable[[Path], None], *, durable: bool = True) -> Path:
    """The directory `target`, built by `build(stage)` unless it is there already.

    It appears whole or not at all. Of several processes one builds and the others wait for it, so
    nothing but what the builder itself leaves may be kept in target.parent. durable False: a power
    cut may damage it, for what is many files and tells by itself. Raises OutputError when
    the place cannot be written, RunError when the disk is full.
    """
    if target.is_dir():
        return target
    try:
        make_directory(target.parent)
        with _locked(target.parent / ".lock"):
            # What a killed process had renamed aside may be the target.
            remove_stale_stages(target.parent)
            if not target.is_dir():
                with staged_directory(target) as stage:
                    build(stage)
                    if durable:
                        fsync_tree(stage)
    except OSError as fault:
        raise _storage_error(target, fault) from fault
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """An exclusive lock that ends with the process, however it ends."""
    while True:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Who waited may have got the lock of a file that was removed meanwhile.
            if is_open_file(file.fileno(), path):
                yield
                return


def _storage_error(target: Path, fault: OSError) -> LlamafarmError:
    hint = "choose another place: export LLAMAFARM_CACHE=/path/with/room"
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"the disk is full: {target} could not be written", hint=hint)
    return OutputError(f"{target} cannot be written: {fault.strerror or fault}", hint=hint)


def _xdg(variable: str, fallback: str) -> Path:
    """A relative path in an XDG variable is to be ignored, says the specification."""
    value = Path(os.environ.get(variable, ""))
    return value if value.is_absolute() else Path.home() / fallback
