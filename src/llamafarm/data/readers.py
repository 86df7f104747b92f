"""Any data location, opened: its name, its fingerprint, and its records as often as asked for."""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llamafarm.data.compressed import (
    ENDINGS,
    open_bytes,
    refuse_double_compression,
    refuse_hidden_compression,
    unpack_command,
    without_compression,
)
from llamafarm.data.encoding import refuse_wide_encoding
from llamafarm.data.hub_reader import hub_name, hub_rows, hub_sha256, load_hub_dataset
from llamafarm.data.json_reader import is_jsonl_inside, read_json, read_jsonl
from llamafarm.data.records import ROW_HINT, Item
from llamafarm.data.request import DataLocation, HubDataset
from llamafarm.data.table_reader import csv_delimiter, read_delimited, read_parquet
from llamafarm.errors import DataError

SUPPORTED = ".jsonl, .json, .csv, .tsv, .parquet"
COMPRESSED = f"all but .parquet also with {' or '.join(ENDINGS)}"
_KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_WAYS_OUT = {
    **dict.fromkeys(
        (".txt", ".md", ".html", ".htm", ".docx", ".pdf"),
        "make rows of it first: `llamafarm prepare FILE --output data.jsonl`",
    ),
    ".bz2": "unpack it first: `bunzip2 -k FILE`",
    ".xz": "unpack it first: `unxz -k FILE`",
    ".zip": "unpack it first: `unzip FILE`",
    ".tar": "unpack it first: `tar -xf FILE`",
    ".tgz": "unpack it first: `tar -xf FILE`",
    ".xlsx": "save the sheet as CSV (UTF-8)",
    ".xls": "save the sheet as CSV (UTF-8)",
    ".arrow": 'save it as Parquet: `datasets.load_from_disk("DIR").to_parquet("data.parquet")`',
}

_SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class RowSource:
    """One opened file or Hub split. items() starts from the first record each time it is called.

    kind: jsonl, json, csv, tsv, parquet or hub; sha256: of the file's bytes as they are on disk, of
    the rows for a Hub split. Lines and offsets of a compressed file are those of the file inside.
    """

    name: str
    kind: str
    sha256: str
    items: Callable[[], Iterator[Item]]
    notices: tuple[str, ...] = ()


def open_source(location: DataLocation) -> RowSource:
    """Open a file, compressed or not, or a Hub split.

    Raises DataError when it is missing, empty, no regular file, or of a kind that cannot be read.
    """
    if isinstance(location, HubDataset):
        rows = load_hub_dataset(location)
        name = hub_name(location)
        return RowSource(name, "hub", hub_sha256(rows), partial(hub_rows, rows, name))
    name = display_name(location)
    try:
        return _open_file(location, name)
    except OSError as fault:
        raise DataError(f"{name} cannot be read: {fault.strerror or fault}") from fault


def display_name(path: Path) -> str:
    """A path as messages show it: relative where it lies below the working directory."""
    absolute = path.absolute()
    here = Path.cwd()
    shown = absolute.relative_to(here) if absolute.is_relative_to(here) else path
    return os.fsencode(shown).decode("utf-8", "backslashreplace")


def file_kind(path: Path) -> str:
    """What a file is read as, by its name: jsonl, json, csv, tsv or parquet; empty when it is not
    read.
    """
    return _KINDS.get(without_compression(path).suffix.lower(), "")


def _open_file(path: Path, name: str) -> RowSource:
    _check_is_file(path, name)
    kind = _kind(path, name)
    before = _identity(path)
    with path.open("rb") as file:
        refuse_hidden_compression(path, file.read(4), name)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    head = _head(path, name)
    refuse_double_compression(path, head, name)
    notices: tuple[str, ...] = ()
    if kind != "parquet":
        refuse_wide_encoding(head, name)
    if kind == "json" and is_jsonl_inside(path, name):
        kind, notices = "jsonl", (f"{name} holds one object a line: read as JSONL",)
    read = _reader(path, name, kind)
    return RowSource(name, kind, sha256, partial(_unchanged, path, name, before, read), notices)


def _head(path: Path, name: str) -> bytes:
    """The first bytes of a file that is not blank to its end."""
    with open_bytes(path, name) as file:
        head = chunk = file.read(1024)
        while chunk and chunk.isspace():
            chunk = file.read(2**20)
    if not chunk:
        raise DataError(f"{name} is empty", hint=ROW_HINT)
    return head


def _check_is_file(path: Path, name: str) -> None:
    """Nothing else is opened: a pipe would be waited for, a device has no end."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise _missing(path, name) from fault
    except ValueError as fault:
        raise DataError(f"{name!r} is no file name: {fault}") from fault
    if stat.S_ISDIR(mode):
        inside = sorted(p.name for p in path.iterdir() if file_kind(p))[:5]
        holds = f"; it holds {', '.join(inside)}" if inside else ""
        raise DataError(f"{name} is a directory{holds}", hint="name one file of it")
    if not stat.S_ISREG(mode):
        raise DataError(
            f"{name} is {_SPECIAL.get(stat.S_IFMT(mode), 'no file')}, not a regular file",
            hint="save the rows into a file first",
        )


def _missing(path: Path, name: str) -> DataError:
    if path.is_symlink():
        target = path.readlink()
        return DataError(
            f"{name} is a link to {target}, which does not exist", hint="name the file itself"
        )
    return DataError(f"{name} does not exist", hint=nearest_hint(path))


def nearest_hint(path: Path) -> str:
    """For a path that does not exist: the name beside it that is most like it. Raises OSError."""
    from difflib import get_close_matches

    folder = path.absolute().parent
    if not folder.is_dir():
        return f"the directory {folder} does not exist either"
    near = get_close_matches(path.name, [p.name for p in folder.iterdir()], n=1)
    return f"did you mean {path.with_name(near[0])}?" if near else f"looked in {folder}"


def _kind(path: Path, name: str) -> str:
    inside = without_compression(path)
    suffix = inside.suffix.lower()
    kind = _KINDS.get(suffix)
    if kind == "parquet" and inside != path:
        raise DataError(
            f"{name}: Parquet is read as it is, not from {path.suffix}",
            hint=f"unpack it first: `{unpack_command(name)} > {without_compression(Path(name))}`",
        )
    if kind is not None:
        return kind
    way_out = _WAYS_OUT.get(suffix, f"bring the rows as one of {SUPPORTED} ({COMPRESSED})")
    raise DataError(
        f"{name}: rows are read from {SUPPORTED}, not from {suffix or 'a file without ending'}",
        hint=way_out.replace("FILE", shlex.quote(name)),
    )


def _reader(path: Path, name: str, kind: str) -> Callable[[], Iterator[Item]]:
    match kind:
        case "jsonl":
            return partial(read_jsonl, path, name)
        case "json":
            return partial(read_json, path, name)
        case "csv":
            return partial(read_delimited, path, name, csv_delimiter(path, name))
        case "tsv":
            return partial(read_delimited, path, name, "\t")
    return partial(read_parquet, path, name)


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _unchanged(
    path: Path,
    name: str,
    before: tuple[int, int, int],
    read: Callable[[], Iterator[Item]],
) -> Iterator[Item]:
    """Rows are read more than once: a file that changes in between would be mixed with itself."""
    try:
        yield from read()
        changed = _identity(path) != before
    except OSError as fault:
        raise DataError(f"{name} cannot be read: {fault.strerror or fault}") from fault
    if changed:
        raise DataError(f"{name} changed while it was read", hint="start again")
