"""Rows on disk that wait until all of them are known, and where each came from."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True, slots=True)
class RowOrigin:
    """file: its number among the inputs; number: of the line, record, page or paragraph."""

    file: int
    number: int
    kind: str
    shape: str


class Spool:
    """Lines of JSONL, numbered from 0; a few bytes of each stay in memory. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("wb")
        self._files = array("L")
        self._numbers = array("Q")
        self._sorts = array("H")
        self._sort_numbers: dict[tuple[str, str], int] = {}
        self._gone = bytearray()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()

    def __len__(self) -> int:
        return len(self._files)

    def add(self, line: bytes, origin: RowOrigin) -> None:
        """The next row."""
        self._stream.write(line)
        self._files.append(origin.file)
        self._numbers.append(origin.number)
        sort = (origin.kind, origin.shape)
        self._sorts.append(self._sort_numbers.setdefault(sort, len(self._sort_numbers)))
        self._gone.append(False)

    def origin(self, row: int) -> RowOrigin:
        """Where a row came from."""
        kind, shape = list(self._sort_numbers)[self._sorts[row]]
        return RowOrigin(self._files[row], self._numbers[row], kind, shape)

    def drop(self, row: int) -> None:
        """The row is not written."""
        self._gone[row] = True

    def lines(self) -> Iterator[bytes]:
        """The rows that stay."""
        self._stream.flush()
        with self._path.open("rb") as stream:
            for line, gone in zip(stream, self._gone, strict=True):
                if not gone:
                    yield line

    def kept(self) -> Counter[tuple[int, str]]:
        """How many rows stay, by file and shape."""
        shapes = [shape for _, shape in self._sort_numbers]
        return Counter(
            (file, shapes[sort])
            for file, sort, gone in zip(self._files, self._sorts, self._gone, strict=True)
            if not gone
        )
