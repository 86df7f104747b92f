"""The directory that `convert` makes: whole or not at all, and never over anything of somebody
else's.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from llamafarm.errors import LlamafarmError, OutputError, RunError, count_of
from llamafarm.files import staged_directory
from llamafarm.hardware.facts import GIB

# What convert itself writes, and so may replace.
_OURS = re.compile(
    r"""( .+\.gguf | parity\.json | Modelfile | README\.md | LICENSE | llamafarm\.json
        | config\.json | generation_config\.json | model(-\d{5}-of-\d{5})?\.safetensors
        | model\.safetensors\.index\.json | tokenizer.* | special_tokens_map\.json | vocab\.json
        | merges\.txt | added_tokens\.json | chat_template\.jinja )""",
    re.VERBOSE,
)


def check_target(target: Path, source: Path, *, base: Path | None = None, overwrite: bool) -> None:
    """Raises OutputError for a target that exists (without overwrite), that holds what `convert`
    never wrote, or that is the source, lies in it, or holds it or its base.
    """
    try:
        here, there = target.resolve(), source.resolve()
        if _holds(here, there) or _holds(there, here):
            raise _lie_in_one_another(target, source)
        if base is not None and _holds(here, base.resolve()):
            raise _lie_in_one_another(target, base)
        _check_place(target, overwrite)
    except OSError as fault:
        raise _storage_error(target, fault) from fault


def _holds(outer: Path, inner: Path) -> bool:
    return outer in (inner, *inner.parents)


def _lie_in_one_another(target: Path, source: Path) -> OutputError:
    return OutputError(
        f"the target {target} and the source {source} lie in one another",
        hint="name another directory: the source is never changed",
    )


def _check_place(target: Path, overwrite: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError(
            f"the target {target} is not a directory", hint="name a directory that is to be made"
        )
    found = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    # What a fully trained model consists of has the same names.
    trained = target.name == "final_model" and (target.parent / "run.json").is_file()
    foreign = [name for name in found if trained or not _OURS.fullmatch(name)]
    if foreign:
        raise OutputError(
            f"the target {target} holds what convert did not write: {', '.join(foreign[:5])}",
            hint="name another directory; this one is never replaced, even with --overwrite",
        )
    if found and not overwrite:
        raise OutputError(
            f"the target {target} exists (it holds {count_of(len(found), 'file')})",
            hint="add --overwrite to replace it, or name another directory",
        )


def make_room(target: Path, needed_bytes: int, *, smaller: str = "") -> None:
    """Raises RunError where the disk has no room for what will be written. smaller: a way to need
    less. What a killed conversion into this target left is removed first.
    """
    _remove_left_overs(target)
    place = next(p for p in (target.absolute(), *target.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed_bytes > free:
        ways = ["free some space", "name a directory on another disk", *filter(None, [smaller])]
        raise RunError(
            f"{target} needs {needed_bytes / GIB:.2f} GiB, and {free / GIB:.2f} GiB are free there",
            hint=", or ".join([", ".join(ways[:-1]), ways[-1]]),
        )


def _remove_left_overs(target: Path) -> None:
    stage = re.compile(rf"\.tmp-{re.escape(target.name)}-(\d{{1,9}})")
    beside = target.parent.iterdir() if target.parent.is_dir() else ()
    for path in beside:
        process = stage.fullmatch(path.name)
        if process is not None and not psutil.pid_exists(int(process[1])):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def staged_target(target: Path) -> Iterator[Path]:
    """A directory to write into that becomes the target when the block ends without an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged_directory(target) as stage:
            yield stage
    except OSError as fault:
        raise _storage_error(target, fault) from fault


def _storage_error(target: Path, fault: OSError) -> LlamafarmError:
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"the disk is full: {target} could not be written, and nothing of it was kept",
            hint="free some space, or name a directory on another disk",
        )
    return OutputError(
        f"{target} cannot be written: {fault.strerror or fault}",
        hint="name a directory that you may write to",
    )
