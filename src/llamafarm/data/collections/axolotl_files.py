"""The files that a dataset of an axolotl config names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from llamafarm.data.collections.directory import SIDE_NAMES, directory_sides
from llamafarm.data.collections.settings import Settings
from llamafarm.data.readers import display_name, file_kind
from llamafarm.errors import DataError

# axolotl's name for a loader → the kinds of file that it reads.
_LOADERS = {"json": ("json", "jsonl"), "csv": ("csv", "tsv"), "parquet": ("parquet",)}
_HUB = "a dataset of the Hub is named with `dataset.dataset_name"


def dataset_files(entry: Settings, directory: Path) -> tuple[Path, ...]:
    """What `path` names, or `data_files` in it; a split only of a directory.

    Names are looked up in `directory`, then in the working directory.
    """
    name, parts = entry.text("path"), entry.texts("data_files")
    split_key, split = _split(entry)
    loader = entry.choice("ds_type", tuple(_LOADERS))
    if not name:
        if not entry.has("path"):
            entry.fault("path", "is missing", "name a local file")
        return ()
    base = _look_up(name, directory)
    if base is not None and base.is_dir() and not parts:
        return _of_split(entry, base, split_key, split)
    if split != "train":
        entry.fault(split_key, f"a file has no split `{split}`", "leave it out")
    if parts:
        folder = base if base is not None and base.is_dir() else directory
        files = _existing(entry, "data_files", parts, folder)
    else:
        files = _existing(entry, "path", (name,), directory)
    for file in files:
        if loader and file_kind(file) not in ("", *_LOADERS[loader]):
            message = f"{display_name(file)} is read as {file_kind(file)}, by its name"
            entry.fault("ds_type", message, "leave it out, or rename the file")
    return files


def _split(entry: Settings) -> tuple[str, str]:
    """The split that is wanted, and the one of axolotl's two keys that names it."""
    split, other = entry.text("split"), entry.text("train_on_split")
    if split and other and split != other:
        entry.fault("train_on_split", f"split says `{split}`, this `{other}`", "write one of them")
    return ("train_on_split", other) if other and not split else ("split", split or "train")


def _of_split(entry: Settings, directory: Path, key: str, split: str) -> tuple[Path, ...]:
    """The files of a directory for one split, whatever the split is called."""
    try:
        inside = directory_sides(directory)
        side = SIDE_NAMES.get(split)
        files = inside.of(side) if side else ()
    except DataError as fault:
        entry.fault("path", fault.summary, fault.hint)
        return ()
    if not files:
        message = f"{display_name(directory)} has no split `{split}`"
        entry.fault(key, message, f"splits are told by file names: {', '.join(SIDE_NAMES)}")
    for text in inside.notices:
        entry.notice(text)
    return files


def _existing(entry: Settings, key: str, names: Sequence[str], directory: Path) -> tuple[Path, ...]:
    """The files of these names; every one that is not there is a problem."""
    files = []
    for name in names:
        file = _look_up(name, directory)
        if file is not None and file.is_dir():
            entry.fault(key, f"{name} is a directory", "name its files")
        elif file is not None:
            files.append(file)
        elif "://" in name:
            entry.fault(key, f"{name} is not a local file", "bring the rows here as a file")
        elif key == "path" and _may_be_on_the_hub(name):
            entry.fault(key, f"there is no file {name}", f"{_HUB}: {name}`")
        else:
            hint = f"it was looked for in {display_name(directory)} and in the working directory"
            entry.fault(key, f"there is no file {name}", hint)
    return tuple(files)


def _look_up(name: str, directory: Path) -> Path | None:
    # A user that there is not stays as written; Path.expanduser would raise.
    wanted = Path(os.path.expanduser(name))  # noqa: PTH111
    return next((p for p in (directory / wanted, wanted) if p.exists()), None)


def _may_be_on_the_hub(name: str) -> bool:
    return not file_kind(Path(name)) and name.count("/") <= 1 and name[0] not in "./~"
