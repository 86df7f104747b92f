"""A path that somebody named as data: one file, or a collection of files."""

from __future__ import annotations

from pathlib import Path

from llamafarm.data.collections.axolotl import axolotl_collection
from llamafarm.data.collections.collection import Collection
from llamafarm.data.collections.dataset_info import INDEX_NAME, index_collection, is_index
from llamafarm.data.collections.directory import directory_collection
from llamafarm.data.readers import display_name
from llamafarm.errors import DataError


def expand(path: Path, *, name: str | None = None) -> Collection | None:
    """What a path stands for; None when it is an ordinary file.

    Collections are a directory with files named train, valid and test; LLaMA-Factory's
    dataset_info.json, or a directory with one, of which `name` chooses an entry; and an axolotl
    config (.yml, .yaml) with local datasets. Raises DataError with every problem of the collection
    at once.
    """
    try:
        return _expand(path, name)
    except OSError as fault:
        raise DataError(f"{display_name(path)} cannot be read: {fault.strerror}") from fault


def _expand(path: Path, name: str | None) -> Collection | None:
    index = path / INDEX_NAME if path.is_dir() else path
    named = index.name == INDEX_NAME or (name is not None and index.suffix == ".json")
    if named and index.is_file() and (index == path or is_index(index)):
        return index_collection(index, name)
    if name is not None:
        raise DataError(
            f"{display_name(path)} has no datasets to choose `{name}` from",
            hint=f"names choose an entry of LLaMA-Factory's {INDEX_NAME}: leave `#{name}` out",
        )
    if path.is_dir():
        return directory_collection(path)
    if path.suffix.lower() in (".yml", ".yaml") and path.is_file():
        return axolotl_collection(path)
    return None
