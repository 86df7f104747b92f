"""Where a data file that somebody named lies: beside the strategy, in the working directory,
bundled.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from llamafarm.decision import place
from llamafarm.errors import Problem
from llamafarm.strategy.model import Strategy

_LISTED = 3


def search_directories(strategy: Strategy, path: str, working_directory: Path) -> tuple[Path, ...]:
    """Where the file named at this dotted path is looked for, in order.

    A path in a strategy file starts beside that file, then in the working directory; one that was
    given as a flag, or by a program, the other way round.
    """
    origin = strategy.origin(path)
    beside = (strategy.file.absolute().parent,) if strategy.file is not None else ()
    if origin is not None and origin.kind == "strategy":
        order = (*beside, working_directory)
    else:
        order = (working_directory, *beside)
    return tuple(dict.fromkeys(order))


def find_data_file(
    name: str, directories: Sequence[Path], bundled_data: Path | None, *, collections: bool = False
) -> Path | None:
    """The first file of that name; a bare name is looked for in the bundled data last.

    collections: a directory will do too.
    """
    wanted = _path(name)
    candidates = [directory / wanted for directory in directories]
    if bundled_data is not None and wanted.name == str(wanted):
        candidates += sorted(p for p in bundled_data.rglob("*") if p.name == wanted.name)
    # Unlike pathlib's, these two say no where a name is longer than the system allows.
    fits = os.path.exists if collections else os.path.isfile
    return next((file for file in candidates if fits(file)), None)


def missing_file(strategy: Strategy, path: str, name: str, directories: Sequence[Path]) -> Problem:
    """What to tell about a file that is nowhere: where it was looked for, and names that are
    near.
    """
    wanted = _path(name)
    message, hint = f"there is no file {name}", ""
    if wanted.is_absolute():
        directories = (wanted.parent,)
        wanted = Path(wanted.name)
    if any(os.path.isdir(directory / wanted) for directory in directories):  # noqa: PTH112
        message, hint = f"{name} is a directory", "name a file in it"
    elif near := _near_names(wanted, directories):
        hint = f"did you mean {' or '.join(near)}?"
    elif "/" in name and not wanted.suffix:
        hint = f"a dataset of the Hub is named with `dataset_name: {name}`"
    else:
        hint = f"it was looked for in {', '.join(str(directory) for directory in directories)}"
    return Problem(message, where=place(strategy.origin(path)), path=path, hint=hint)


def shown_path(file: Path, working_directory: Path) -> str:
    """Relative to the working directory where the file lies below it."""
    if file.is_relative_to(working_directory):
        return str(file.relative_to(working_directory))
    return str(file)


def _path(name: str) -> Path:
    """With the home directory for `~`; a user that there is not stays as written."""
    return Path(os.path.expanduser(name))  # noqa: PTH111  # which raises for such a user


def _near_names(wanted: Path, directories: Sequence[Path]) -> list[str]:
    """Files beside where it should be whose names are close, as they would be written."""
    present = {
        str(wanted.parent / file.name)
        for directory in directories
        for file in _files(directory / wanted.parent)
    }
    return difflib.get_close_matches(str(wanted), sorted(present), n=_LISTED, cutoff=0.7)


def _files(directory: Path) -> list[Path]:
    is_there = os.path.isdir(directory)  # noqa: PTH112  # see find_data_file
    return [file for file in directory.iterdir() if file.is_file()] if is_there else []
