"""A directory as data: its files are told apart by their names.

They are those of mlx-lm (train, valid, test), of `datasplit` (NAME_train, NAME_eval), and of the
Hugging Face Hub (shards such as train-00000-of-00003.parquet).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from llamafarm.data.collections.collection import Collection
from llamafarm.data.compressed import without_compression
from llamafarm.data.readers import display_name, file_kind
from llamafarm.errors import DataError, count_of

Side = Literal["train", "eval", "test"]
SIDE_NAMES: Mapping[str, Side] = {
    "train": "train",
    "training": "train",
    "valid": "eval",
    "validation": "eval",
    "val": "eval",
    "dev": "eval",
    "eval": "eval",
    "evaluation": "eval",
    "test": "test",
}
_SHARD = re.compile(r"(.+?)-(\d{1,9})-of-(\d{1,9})(?:-[0-9a-f]+)?")
_SUBDIRECTORY = "data"
# What `datasets` and the Hub write beside the data.
_DESCRIPTIONS = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
)
_LISTED = 10
_HINT = (
    "name them train.jsonl, valid.jsonl and test.jsonl (also validation, val, dev, eval; "
    "NAME_train.jsonl; train-00000-of-00003.parquet), or name one file of the directory"
)


@dataclass(frozen=True, slots=True)
class _File:
    """prefix: what stands before the side in its name, `medical` in medical_train; shard, shards:
    number and count of shards, 0 and 0 where it is none.
    """

    path: Path
    side: Side | None
    prefix: str = ""
    shard: int = 0
    shards: int = 0


@dataclass(frozen=True, slots=True)
class Sides:
    """The files of a directory by their sides, and what is to be said of the others.

    undecided: all files, where none is named train and some may be it: their names tell no side.
    """

    path: Path
    files: Mapping[Side, tuple[Path, ...]]
    undecided: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()

    def of(self, side: Side) -> tuple[Path, ...]:
        """The files of one side. Raises DataError where names do not tell which to train on."""
        if side == "train" and self.undecided:
            raise _unclear(self.path, self.undecided)
        return self.files.get(side, ())


def directory_collection(path: Path) -> Collection:
    """A directory to train on.

    Raises DataError as `directory_sides` does, when no file is one to train on, and when more than
    one is to be evaluated or tested on.
    """
    sides = directory_sides(path)
    train = sides.of("train")
    if not train:
        others = [file for files in sides.files.values() for file in files]
        raise DataError(
            f"{display_name(path)} has no file to train on: it holds "
            f"{_listed(file.name for file in others)}",
            hint=f"to train on it, name the file: {display_name(others[0])}",
        )
    return Collection(
        train=train,
        eval=_single(path, sides.of("eval")),
        test=_single(path, sides.of("test")),
        notices=sides.notices,
    )


def directory_sides(path: Path) -> Sides:
    """The files of a directory. A single one whose name does not tell its side is trained on.

    Raises DataError when it has none, when their names do not tell what is what, and when shards
    are missing.
    """
    files = data_files(path)
    if not files and (path / _SUBDIRECTORY).is_dir():
        path = path / _SUBDIRECTORY
        files = data_files(path)
    if not files:
        raise _nothing(path)
    recognised = [_recognised(file) for file in files]
    if len(recognised) == 1 and recognised[0].side is None and recognised[0].shards <= 1:
        return Sides(path, {"train": files})
    return _by_side(path, recognised)


def data_files(path: Path) -> tuple[Path, ...]:
    """The data files of a directory in the order of their names; hidden ones are left out."""
    files = (
        file
        for file in path.iterdir()
        if not file.name.startswith(".") and file.name not in _DESCRIPTIONS
    )
    return tuple(sorted(file for file in files if file_kind(file) and not file.is_dir()))


def _nothing(path: Path) -> DataError:
    name = display_name(path)
    if any(file.suffix == ".arrow" for file in path.iterdir()):
        hint = f'`datasets.load_from_disk("{name}")["train"].to_parquet("train.parquet")`'
        return DataError(
            f"{name} was saved by `datasets`, whose .arrow files are not read", hint=hint
        )
    return DataError(f"{name} is a directory without data files", hint=_HINT)


def _recognised(path: Path) -> _File:
    stem = without_compression(path).stem.lower()
    shard = shards = 0
    if match := _SHARD.fullmatch(stem):
        stem, shard, shards = match[1], int(match[2]), int(match[3])
    prefix, word = "", stem
    if stem not in SIDE_NAMES:
        prefix, _, word = re.sub(r"[.-]", "_", stem).rpartition("_")
    return _File(path, SIDE_NAMES.get(word), prefix, shard, shards)


def _by_side(path: Path, files: Sequence[_File]) -> Sides:
    """The sides of the one set that is trained on; where none is, of the only set."""
    prefixes = {file.prefix for file in files if file.side == "train"}
    prefixes = prefixes or {file.prefix for file in files if file.side}
    if len(prefixes) != 1:
        raise _unclear(path, [file.path for file in files])
    prefix = prefixes.pop()
    chosen = [file for file in files if file.side and file.prefix == prefix]
    sides: dict[Side, tuple[Path, ...]] = {
        side: _one_set(path, [file for file in chosen if file.side == side])
        for side in get_args(Side)
    }
    rest = [file.path.name for file in files if file not in chosen]
    unused = (f"{display_name(path)}: not read: {_listed(rest)}",) if rest else ()
    is_undecided = not sides["train"] and any(file.side is None for file in files)
    undecided = tuple(file.path for file in files) if is_undecided else ()
    return Sides(path, sides, undecided, unused)


def _one_set(path: Path, files: Sequence[_File]) -> tuple[Path, ...]:
    """One file, or all shards of one set; nothing where there is no file."""
    if len(files) <= 1 and all(file.shards <= 1 for file in files):
        return tuple(file.path for file in files)
    paths = [file.path for file in files]
    if len({(file.shards, file.path.suffix) for file in files}) > 1 or not files[0].shards:
        raise _unclear(path, paths)
    numbers = {file.shard for file in files}
    total = files[0].shards
    if len(numbers) != len(files) or max(numbers) >= total:
        raise _unclear(path, paths)
    if len(numbers) != total:
        missing = next(number for number in range(total) if number not in numbers)
        raise DataError(
            f"{display_name(path)} has {len(numbers):,} of the {count_of(total, 'shard')} of "
            f"{_shard_base(files[0])}; the first that is missing is number {missing}",
            hint="fetch all shards, or rename those that are to be read",
        )
    return tuple(file.path for file in sorted(files, key=lambda file: file.shard))


def _shard_base(file: _File) -> str:
    return f"{file.prefix}_{file.side}" if file.prefix else str(file.side)


def _single(path: Path, files: tuple[Path, ...]) -> Path | None:
    if len(files) > 1:
        raise DataError(
            f"{display_name(path)} has {count_of(len(files), 'file')} for one side "
            f"({_listed(file.name for file in files)}): rows are evaluated and tested from one",
            hint="join them into one file",
        )
    return files[0] if files else None


def _unclear(path: Path, files: Sequence[Path]) -> DataError:
    return DataError(
        f"{display_name(path)} is a directory that holds "
        f"{_listed(file.name for file in files)}: which is which is not clear",
        hint=_HINT,
    )


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED:,} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
