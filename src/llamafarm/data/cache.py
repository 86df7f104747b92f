"""Tokenised rows on disk, named by everything that decides them; made once, memory-mapped ever
after.

An entry is a directory: SIDE-NNNNN.arrow files and manifest.json, which holds sizes, SHA-256 and
the data report. A damaged entry is noticed and made again, so nothing here needs to be repaired by
hand: deleting it is always safe. While an entry is made, its finished parts stand beside it, so
that work that was cut off goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from llamafarm.data.report import DataReport
from llamafarm.data.rows import RowRef
from llamafarm.data.token_row import TokenRow
from llamafarm.data.tokenized import row_bytes
from llamafarm.files import to_json_bytes, write_bytes

# Part of every key: raise it when the same request and files would give other tokens, masks,
# texts or reports.
CODE_VERSION = 8
MANIFEST = "manifest.json"


def entry_key(parts: Mapping[str, object]) -> str:
    """SHA-256 of what decides the tokens, as canonical JSON."""
    text = json.dumps({"version": CODE_VERSION, **parts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


class FileRecord(BaseModel):
    """Size and hash of one file of an entry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """What manifest.json holds. fingerprints: of each side's tokens and masks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[str, FileRecord]
    fingerprints: dict[str, str]
    report: DataReport


class SideWriter:
    """Writes the rows of one side as an Arrow file, a record batch at a time.

    files: the names that a row's source may have, in an order that does not change.
    """

    def __init__(self, path: Path, files: Sequence[str]) -> None:
        import pyarrow as pa

        self._pa = pa
        self._file = path.open("xb")
        self._writer = pa.ipc.new_file(self._file, _schema())
        self._number = {name: number for number, name in enumerate(files)}
        self.rows = 0

    def write(self, rows: Sequence[TokenRow]) -> None:
        """Append rows."""
        if not rows:
            return
        pa = self._pa
        offsets = np.cumsum([0, *(len(row.input_ids) for row in rows)], dtype=np.int32)
        ids = np.concatenate([row.input_ids for row in rows]).astype(np.int32, copy=False)
        trained = np.concatenate([row.trained for row in rows])
        numbers = [self._number[row.source.file] for row in rows]
        columns = [
            pa.ListArray.from_arrays(_column(offsets), _column(ids)),
            pa.ListArray.from_arrays(_column(offsets), _bits(trained)),
            _column(np.array([np.count_nonzero(row.trained) for row in rows], np.int32)),
            _column(np.array(numbers, np.int16)),
            _column(np.array([row.source.line for row in rows], np.int64)),
            _strings([row.prompt for row in rows]),
            _strings([row.answer for row in rows]),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=_schema()))
        self.rows += len(rows)

    def finish(self) -> None:
        """Complete the file and put it on disk."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file, finished or not."""
        self._file.close()


def _column(values: npt.NDArray[Any]) -> Any:
    """Numbers as an Arrow array. `pyarrow.array` would import pandas first, a second of work."""
    import pyarrow as pa

    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _strings(texts: Sequence[str]) -> Any:
    """Texts as an Arrow array."""
    import pyarrow as pa

    encoded = [text.encode("utf-8") for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    data = pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), data)


def _bits(values: npt.NDArray[np.bool_]) -> Any:
    """Booleans as an Arrow array: a bit each."""
    import pyarrow as pa

    packed = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, packed])


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("input_ids", pa.list_(pa.int32())),
            ("trained", pa.list_(pa.bool_())),
            ("trained_tokens", pa.int32()),
            ("file", pa.int16()),
            ("line", pa.int64()),
            ("prompt", pa.string()),
            ("answer", pa.string()),
        ]
    )


def fingerprint_of(paths: Sequence[Path]) -> str:
    """SHA-256 over tokens and masks of a side: the same as ListRows makes of the same rows."""
    digest = hashlib.sha256()
    for path in paths:
        for piece in _rows_bytes(path):
            digest.update(piece)
    return digest.hexdigest()


def _rows_bytes(path: Path) -> Iterator[bytes]:
    part = ArrowPart(path)
    return (row_bytes(part.input_ids(row), part.trained(row)) for row in range(len(part)))


class ArrowPart:
    """The rows of one Arrow file, memory-mapped.

    What was read of a mapped file counts as resident memory: whoever reads a whole side lets go of
    each part before the next.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        sizes = [batch.num_rows for batch in self._batches]
        self._starts = np.cumsum([0, *sizes], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def at(self, row: int, column: str) -> Any:
        """One value, as Arrow holds it."""
        batch = bisect_right(self._starts, row) - 1
        return self._batches[batch].column(column)[row - int(self._starts[batch])]

    def input_ids(self, row: int) -> npt.NDArray[np.int32]:
        """Token ids of one row."""
        return _numbers(self.at(row, "input_ids").values, np.int32).copy()

    def trained(self, row: int) -> npt.NDArray[np.bool_]:
        """Which tokens of one row are trained."""
        return _booleans(self.at(row, "trained").values)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of every row."""
        parts = [
            np.diff(_numbers(batch.column("input_ids").offsets, np.int32))
            for batch in self._batches
        ]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)

    def trained_counts(self) -> npt.NDArray[np.int64]:
        """Number of trained tokens of every row."""
        parts = [_numbers(batch.column("trained_tokens"), np.int32) for batch in self._batches]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


class ArrowRows:
    """Rows of one side of a cache entry (a TokenRows). A part is mapped when it is first read.

    paths: the parts of the side in their order; files: names of the files that rows come from, by
    the number that a row holds. Can be sent to another process.
    """

    def __init__(self, paths: Sequence[Path], files: Sequence[str], fingerprint: str) -> None:
        self._paths, self._files, self.fingerprint = tuple(paths), tuple(files), fingerprint
        sizes = [len(ArrowPart(path)) for path in paths]
        self._starts = np.cumsum([0, *sizes], dtype=np.int64)
        self._parts: list[ArrowPart | None] = [None] * len(paths)

    def __reduce__(self) -> tuple[type[ArrowRows], tuple[Any, ...]]:
        return ArrowRows, (self._paths, self._files, self.fingerprint)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _place(self, row: int) -> tuple[ArrowPart, int]:
        """The part that holds a row, and the row's number there."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        number = bisect_right(self._starts, row) - 1
        part = self._parts[number]
        if part is None:
            part = self._parts[number] = ArrowPart(self._paths[number])
        return part, row - int(self._starts[number])

    def input_ids(self, row: int) -> npt.NDArray[np.int32]:
        """Token ids of one row."""
        part, number = self._place(row)
        return part.input_ids(number)

    def trained(self, row: int) -> npt.NDArray[np.bool_]:
        """Which tokens of one row are trained."""
        part, number = self._place(row)
        return part.trained(number)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of every row."""
        return np.concatenate([np.empty(0, np.int64), *(p.lengths() for p in self._each())])

    def trained_counts(self) -> npt.NDArray[np.int64]:
        """Number of trained tokens of every row."""
        return np.concatenate([np.empty(0, np.int64), *(p.trained_counts() for p in self._each())])

    def _each(self) -> Iterator[ArrowPart]:
        """Every part, mapped for as long as it is looked at."""
        return map(ArrowPart, self._paths)

    def source(self, row: int) -> RowRef:
        """Where the row was written."""
        part, number = self._place(row)
        return RowRef(self._files[part.at(number, "file").as_py()], part.at(number, "line").as_py())

    def conversation_text(self, row: int) -> tuple[str, str]:
        """Last question and last answer of the row."""
        part, number = self._place(row)
        return part.at(number, "prompt").as_py(), part.at(number, "answer").as_py()


def _numbers(array: Any, kind: type[np.generic]) -> npt.NDArray[Any]:
    """The values of an Arrow array without nulls, in place. Its own `to_numpy` imports pandas."""
    values = np.frombuffer(array.buffers()[1], kind)
    return values[array.offset : array.offset + len(array)]


def _booleans(array: Any) -> npt.NDArray[np.bool_]:
    first, after = array.offset // 8, -(-(array.offset + len(array)) // 8)
    packed = np.frombuffer(array.buffers()[1], np.uint8)[first:after]
    begin = array.offset - 8 * first
    return np.unpackbits(packed, bitorder="little")[begin : begin + len(array)].astype(np.bool_)


def arrow_path(entry: Path, side: str, part: int = 0) -> Path:
    """File of one part of a side."""
    return entry / f"{side}-{part:05}.arrow"


def arrow_paths(entry: Path, side: str) -> list[Path]:
    """All parts of a side, in their order."""
    return sorted(entry.glob(f"{side}-*.arrow"))


def write_manifest(entry: Path, fingerprints: Mapping[str, str], report: DataReport) -> None:
    """Complete an entry: until its manifest stands, it is none."""
    files = {path.name: record_of(path) for path in sorted(entry.glob("*.arrow"))}
    manifest = Manifest(files=files, fingerprints=dict(fingerprints), report=report)
    write_bytes(entry / MANIFEST, to_json_bytes(manifest.model_dump(mode="json")))


def record_of(path: Path) -> FileRecord:
    """Size and hash of a file as it is."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(size=path.stat().st_size, sha256=digest)


def read_entry(entry: Path) -> Manifest | None:
    """What a whole entry says of itself; None when there is none, or any byte is not as it was
    written.
    """
    try:
        manifest = Manifest.model_validate_json((entry / MANIFEST).read_bytes())
        whole = all(record_of(entry / name) == record for name, record in manifest.files.items())
    except (OSError, ValidationError):
        return None
    return manifest if whole else None


def remove_entry(entry: Path) -> None:
    """Make room for a new entry."""
    shutil.rmtree(entry, ignore_errors=True)
