"""CSV, TSV and Parquet files as records."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from llamafarm.data.encoding import UTF8_BOM, decode_line
from llamafarm.data.records import BadRow, Item, Record
from llamafarm.data.rows import RowRef
from llamafarm.errors import DataError, Problem, count_of

_BATCH_ROWS = 1000
_LONGEST_CELL = 2**30
_DELIMITERS = ",;\t|"


def csv_delimiter(path: Path) -> str:
    """The one of , ; tab | that the header line holds most often; a comma when it holds none."""
    with path.open("rb") as file:
        header = file.readline().decode("utf-8", errors="replace")
    return max(_DELIMITERS, key=header.count)


def read_delimited(path: Path, name: str, delimiter: str) -> Iterator[Item]:
    """Rows under a header. A record's line is the one it starts on; every value is a text."""
    # The csv module's limit of 131,072 characters a cell is one for the whole process; answers may
    # be longer.
    csv.field_size_limit(_LONGEST_CELL)
    with path.open("rb") as file:
        lines = _Lines(file, name)
        parsed = _parse(lines, delimiter)
        _, first = next(parsed, (1, []))
        if isinstance(first, BadRow):
            raise DataError(f"the header of {name} cannot be read", first.problems)
        header = _header(first, name)
        for number, cells in parsed:
            yield from _items(RowRef(name, number), cells, header, lines)
        yield from lines.take_faults()


def _parse(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Every row with the line it starts on.

    After a broken row the parser goes on with the next line.
    """
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = rows.line_num + 1
        try:
            yield start, next(rows)
        except StopIteration:
            return
        except csv.Error as fault:
            yield start, _broken(fault, RowRef(lines.name, start))


def _broken(fault: csv.Error, source: RowRef) -> BadRow:
    hint = "a quote inside a quoted cell is written twice, and every quoted cell is closed"
    if "new-line character" in str(fault):
        hint = "lines end with LF or CRLF: convert with `tr '\\r' '\\n'`"
    message = f"not readable as a row of a table: {fault}"
    return BadRow(source, (Problem(message, where=str(source), hint=hint),))


class _Lines:
    """Decodes line by line; remembers what it could not decode, because csv asks for text and gives
    rows.
    """

    def __init__(self, file: Iterator[bytes], name: str) -> None:
        self._file = file
        self.name = name
        self._number = 0
        self._offset = 0
        self._faults: list[BadRow] = []

    def take_faults(self) -> list[BadRow]:
        """Lines that were not UTF-8 since the last call."""
        taken, self._faults = self._faults, []
        return taken

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self._number += 1
        raw = line.removeprefix(UTF8_BOM) if self._number == 1 else line
        skipped = len(line) - len(raw)
        text = decode_line(raw, RowRef(self.name, self._number), self._offset + skipped)
        self._offset += len(line)
        if isinstance(text, BadRow):
            self._faults.append(text)
            return raw.decode("utf-8", errors="replace")
        return text


def _header(cells: Sequence[str], name: str) -> tuple[str, ...]:
    columns = tuple(cell.strip() for cell in cells)
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError(
            f"{name}:1 names the column {', '.join(repr(c) for c in twice)} more than once",
            hint="give every column its own name, e.g. question,answer",
        )
    return columns


def _items(
    source: RowRef,
    cells: list[str] | BadRow,
    header: Sequence[str],
    lines: _Lines,
) -> Iterator[Item]:
    undecodable = lines.take_faults()
    if undecodable:
        yield from undecodable
    elif isinstance(cells, BadRow):
        yield cells
    elif len(cells) not in (0, len(header)):
        yield _wrong_width(source, len(cells), header)
    elif any(cells):
        yield Record(source, dict(zip(header, cells, strict=True)))


def _wrong_width(source: RowRef, found: int, header: Sequence[str]) -> BadRow:
    message = (
        f"{count_of(found, 'cell')}, but the header has {len(header)} ({', '.join(header)[:80]})"
    )
    hint = 'put a cell that holds the separator into quotes: "like, this"'
    return BadRow(source, (Problem(message, where=str(source), hint=hint),))


def read_parquet(path: Path, name: str) -> Iterator[Item]:
    """Rows of a Parquet file, a batch at a time. Line = record number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(RowRef(name, number), fields)
    except (pa.ArrowException, OSError) as fault:
        reason = str(fault).splitlines()[0]
        raise DataError(
            f"{name} cannot be read as Parquet: {reason}",
            hint="the file is damaged or not Parquet: fetch it again, or convert it to JSONL",
        ) from fault
