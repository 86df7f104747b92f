"""The finished parts of a cache entry that is being made: work that was cut off goes on after them.

A part is one Arrow file a side and a record of what was done, written last. The directory is named
by everything that decides the tokens, so that a part found there is what would be made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, ValidationError

from llamafarm.data.cache import FileRecord, SideWriter, arrow_path, record_of
from llamafarm.data.report import DropKind, DroppedRow, TruncatedRow
from llamafarm.data.token_row import TokenCounts, TokenRow
from llamafarm.files import to_json_bytes, write_bytes_atomic


class PartRecord(BaseModel):
    """What one part holds. rows_read: planned rows that it covers, kept or dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows_read: int
    rows: dict[str, int]
    files: dict[str, FileRecord]
    counts: TokenCounts
    truncated: tuple[TruncatedRow, ...]
    rows_truncated: int
    trained_tokens_cut: int
    dropped: tuple[DroppedRow, ...]
    rows_dropped: dict[DropKind, int]


class PartWriter:
    """The Arrow files of one part while they are written. A context manager."""

    def __init__(
        self, folder: Path, number: int, sides: Sequence[str], files: Sequence[str]
    ) -> None:
        self._folder, self._number = folder, number
        paths = {side: arrow_path(folder, side, number) for side in sides}
        for path in paths.values():
            path.unlink(missing_ok=True)
        self._paths = paths
        self._writers = {side: SideWriter(path, files) for side, path in paths.items()}

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def write(self, side: str, rows: Sequence[TokenRow]) -> None:
        """Append rows to a side."""
        self._writers[side].write(rows)

    def finish(self) -> tuple[dict[str, int], dict[str, FileRecord]]:
        """Complete the files; the rows of each side, and what each file is."""
        for writer in self._writers.values():
            writer.finish()
        rows = {side: writer.rows for side, writer in self._writers.items()}
        return rows, {path.name: record_of(path) for path in self._paths.values()}


class Parts:
    """The directory of finished parts. done: those that stand whole, in order."""

    def __init__(self, folder: Path, sides: Sequence[str], files: Sequence[str]) -> None:
        self.folder, self._sides, self._files = folder, sides, files
        folder.mkdir(parents=True, exist_ok=True)
        self.done: list[PartRecord] = []
        while (record := _whole_part(folder, len(self.done))) is not None:
            self.done.append(record)

    @property
    def rows_read(self) -> int:
        """Planned rows that the finished parts cover."""
        return sum(part.rows_read for part in self.done)

    def writer(self) -> PartWriter:
        """For the next part."""
        return PartWriter(self.folder, len(self.done), self._sides, self._files)

    def add(self, record: PartRecord) -> None:
        """The files of the next part are complete: from now on it stands."""
        data = to_json_bytes(record.model_dump(mode="json"))
        write_bytes_atomic(_record_path(self.folder, len(self.done)), data)
        self.done.append(record)

    def move_to(self, entry: Path) -> None:
        """Hand all Arrow files over to the entry."""
        for number in range(len(self.done)):
            for side in self._sides:
                arrow_path(self.folder, side, number).rename(arrow_path(entry, side, number))
        self.remove()

    def remove(self) -> None:
        """Forget all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _record_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05}.json"


def _whole_part(folder: Path, number: int) -> PartRecord | None:
    """The record of a part, or None where it is missing or any byte is not as it was written."""
    try:
        record = PartRecord.model_validate_json(_record_path(folder, number).read_bytes())
        whole = all(record_of(folder / name) == found for name, found in record.files.items())
    except (OSError, ValidationError):
        return None
    return record if whole else None
