"""Tokenised rows on disk, named by everything that decides them; made once, memory-mapped ever
after.

An entry is a directory: SIDE.arrow files and manifest.json, which holds sizes, SHA-256 and the data
report. A damaged entry is noticed and made again, so nothing here needs to be repaired by hand:
deleting it is always safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from llamafarm.data.report import DataReport
from llamafarm.data.rows import RowRef
from llamafarm.data.token_row import TokenRow
from llamafarm.files import to_json_bytes, write_bytes

# Part of every key: raise it when the same request and files would give other tokens, masks or
# reports.
CODE_VERSION = 1
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
    """Writes the rows of one side as an Arrow file, a record batch at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._pa = pa
        self._file = path.open("xb")
        self._writer = pa.ipc.new_file(self._file, _schema())
        self._digest = hashlib.sha256()
        self.rows = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 over tokens and masks so far: the same as ListRows makes of the same rows."""
        return self._digest.hexdigest()

    def write(self, rows: Sequence[TokenRow]) -> None:
        """Append rows."""
        if not rows:
            return
        pa = self._pa
        offsets = np.cumsum([0, *(len(row.input_ids) for row in rows)], dtype=np.int32)
        ids = pa.array(np.concatenate([row.input_ids for row in rows]), pa.int32())
        trained = pa.array(np.concatenate([row.trained for row in rows]), pa.bool_())
        columns = [
            pa.ListArray.from_arrays(offsets, ids),
            pa.ListArray.from_arrays(offsets, trained),
            pa.array([int(row.trained.sum()) for row in rows], pa.int32()),
            pa.array([row.source.line for row in rows], pa.int64()),
            pa.array([row.prompt for row in rows], pa.string()),
            pa.array([row.answer for row in rows], pa.string()),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=_schema()))
        for row in rows:
            self._digest.update(row.input_ids.tobytes() + b"|" + row.trained.tobytes() + b"\n")
        self.rows += len(rows)

    def finish(self) -> None:
        """Complete the file and put it on disk."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file, finished or not."""
        self._file.close()


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("input_ids", pa.list_(pa.int32())),
            ("trained", pa.list_(pa.bool_())),
            ("trained_tokens", pa.int32()),
            ("line", pa.int64()),
            ("prompt", pa.string()),
            ("answer", pa.string()),
        ]
    )


class ArrowRows:
    """Rows of one side of a cache entry, memory-mapped (a TokenRows).

    Can be sent to another process.
    """

    def __init__(self, path: Path, file_name: str, fingerprint: str) -> None:
        import pyarrow as pa

        self._path, self._file_name, self.fingerprint = path, file_name, fingerprint
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        sizes = [batch.num_rows for batch in self._batches]
        self._starts = np.cumsum([0, *sizes], dtype=np.int64)

    def __reduce__(self) -> tuple[type[ArrowRows], tuple[Path, str, str]]:
        return ArrowRows, (self._path, self._file_name, self.fingerprint)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, row: int, column: str) -> Any:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        batch = bisect_right(self._starts, row) - 1
        return self._batches[batch].column(column)[row - int(self._starts[batch])]

    def input_ids(self, row: int) -> npt.NDArray[np.int32]:
        """Token ids of one row."""
        return np.array(self._at(row, "input_ids").values.to_numpy(), dtype=np.int32)

    def trained(self, row: int) -> npt.NDArray[np.bool_]:
        """Which tokens of one row are trained."""
        values = self._at(row, "trained").values
        return np.array(values.to_numpy(zero_copy_only=False), dtype=np.bool_)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of every row."""
        parts = [np.diff(batch.column("input_ids").offsets.to_numpy()) for batch in self._batches]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)

    def trained_counts(self) -> npt.NDArray[np.int64]:
        """Number of trained tokens of every row."""
        parts = [batch.column("trained_tokens").to_numpy() for batch in self._batches]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)

    def source(self, row: int) -> RowRef:
        """Where the row was written."""
        return RowRef(self._file_name, self._at(row, "line").as_py())

    def conversation_text(self, row: int) -> tuple[str, str]:
        """Last question and last answer of the row."""
        return self._at(row, "prompt").as_py(), self._at(row, "answer").as_py()


def arrow_path(entry: Path, side: str) -> Path:
    """File of one side."""
    return entry / f"{side}.arrow"


def write_manifest(entry: Path, fingerprints: Mapping[str, str], report: DataReport) -> None:
    """Complete an entry: until its manifest stands, it is none."""
    files = {path.name: _record_of(path) for path in sorted(entry.glob("*.arrow"))}
    manifest = Manifest(files=files, fingerprints=dict(fingerprints), report=report)
    write_bytes(entry / MANIFEST, to_json_bytes(manifest.model_dump(mode="json")))


def _record_of(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(size=path.stat().st_size, sha256=digest)


def read_entry(entry: Path) -> Manifest | None:
    """What a whole entry says of itself; None when there is none, or any byte is not as it was
    written.
    """
    try:
        manifest = Manifest.model_validate_json((entry / MANIFEST).read_bytes())
        whole = all(_record_of(entry / name) == record for name, record in manifest.files.items())
    except (OSError, ValidationError):
        return None
    return manifest if whole else None


def remove_entry(entry: Path) -> None:
    """Make room for a new entry."""
    shutil.rmtree(entry, ignore_errors=True)
