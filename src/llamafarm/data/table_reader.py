"""CSV, TSV and Parquet files as records."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from llamafarm.data.compressed import open_bytes
from llamafarm.data.encoding import (
    MAX_LINE_BYTES,
    NUL_HINT,
    UTF8_BOM,
    LongLine,
    decode_line,
    read_lines,
)
from llamafarm.data.records import BadRow, Item, Record
from llamafarm.data.rows import RowRef
from llamafarm.errors import DataError, Problem, count_of

_BATCH_ROWS = 1000
_BUFFER_BYTES = 2**20
# The csv module holds four bytes of memory for every character of the cell that it reads.
_LONGEST_CELL = MAX_LINE_BYTES // 4
_DELIMITERS = ",;\t|"


def csv_delimiter(path: Path, name: str) -> str:
    """The one of , ; tab | that the header line holds most often; a comma when it holds none.

    The header is the first line that is not blank.
    """
    with open_bytes(path, name) as file:
        lines = iter(partial(file.readline, _BUFFER_BYTES), b"")
        line = next((line for line in lines if line.removeprefix(UTF8_BOM).strip(b"\r\n")), b"")
    return max(_DELIMITERS, key=line.decode("utf-8", errors="replace").count)


def read_delimited(path: Path, name: str, delimiter: str) -> Iterator[Item]:
    """Rows under a header. A record's line is the one it starts on; every value is a text."""
    # The csv module's limit of 131,072 characters a cell is one for the whole process; answers may
    # be longer.
    csv.field_size_limit(_LONGEST_CELL)
    with open_bytes(path, name) as file:
        lines = _Lines(file, name)
        parsed = _parse(lines, delimiter)
        header = _header(parsed, lines)
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
    elif "field larger" in str(fault):
        hint = f"a quote is not closed, or a cell has more than {_LONGEST_CELL:,} characters"
    message = f"not readable as a row of a table: {fault}"
    return BadRow(source, (Problem(message, where=str(source), hint=hint),))


class _Lines:
    """Decodes line by line; remembers what it could not decode, because csv asks for text and gives
    rows.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._lines = enumerate(read_lines(file), start=1)
        self.name = name
        self._offset = 0
        self._faults: list[BadRow] = []

    def take_faults(self) -> list[BadRow]:
        """Lines that could not be read as text since the last call."""
        taken, self._faults = self._faults, []
        return taken

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        source = RowRef(self.name, number)
        if isinstance(line, LongLine):
            self._offset += line.length
            self._faults.append(line.refused(source))
            return "\n"
        raw = line.removeprefix(UTF8_BOM) if number == 1 else line
        skipped = len(line) - len(raw)
        text = decode_line(raw, source, self._offset + skipped)
        self._offset += len(line)
        if isinstance(text, BadRow):
            self._faults.append(text)
            return raw.decode("utf-8", errors="replace")
        if "\0" in text:
            self._faults.append(_nul(source, text.index("\0") + 1))
        return text


def _nul(source: RowRef, column: int) -> BadRow:
    message = f"a NUL byte stands at column {column}"
    return BadRow(source, (Problem(message, where=str(source), hint=NUL_HINT),))


@dataclass(frozen=True, slots=True)
class _Header:
    """columns: names in the file's order; shown: the first of them, for messages."""

    columns: tuple[str, ...]
    shown: str


def _header(parsed: Iterator[tuple[int, list[str] | BadRow]], lines: _Lines) -> _Header:
    """The first row that is not blank."""
    name = lines.name
    number, cells = next(((n, cells) for n, cells in parsed if cells), (1, []))
    faults = lines.take_faults()
    if isinstance(cells, BadRow):
        faults.append(cells)
    if faults or isinstance(cells, BadRow):
        problems = [problem for fault in faults for problem in fault.problems]
        raise DataError(f"the header of {name} cannot be read", problems)
    columns = tuple(cell.strip() for cell in cells)
    if twice := _twice(columns):
        raise DataError(
            f"{name}:{number} names the column {twice} more than once",
            hint="give every column its own name, e.g. question,answer",
        )
    return _Header(columns, ", ".join(columns)[:80])


def _items(
    source: RowRef,
    cells: list[str] | BadRow,
    header: _Header,
    lines: _Lines,
) -> Iterator[Item]:
    unreadable = lines.take_faults()
    if unreadable:
        yield from unreadable
    elif isinstance(cells, BadRow):
        yield cells
    elif len(cells) not in (0, len(header.columns)):
        yield _wrong_width(source, len(cells), header)
    elif any(cells):
        yield Record(source, dict(zip(header.columns, cells, strict=True)))


def _wrong_width(source: RowRef, found: int, header: _Header) -> BadRow:
    expected = len(header.columns)
    message = f"{count_of(found, 'cell')}, but the header has {expected:,} ({header.shown})"
    hint = 'put a cell that holds the separator into quotes: "like, this"'
    return BadRow(source, (Problem(message, where=str(source), hint=hint),))


def read_parquet(path: Path, name: str) -> Iterator[Item]:
    """Rows of a Parquet file, a page at a time. Line = record number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # Without these two a whole row group, which may be the whole file, is in memory at once.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            _refuse_twice(file.schema_arrow.names, name)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for fields in _rows(batch):
                    number += 1
                    yield _parquet_item(RowRef(name, number), fields)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as fault:
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise DataError(
            f"{name} cannot be read as Parquet: {reason}",
            hint="the file is damaged or not Parquet: fetch it again, or convert it to JSONL",
        ) from fault


def _twice(columns: Sequence[str]) -> str:
    """The names that stand more than once, as messages show them."""
    names = sorted(column for column, count in Counter(columns).items() if count > 1)
    return ", ".join(map(repr, names[:5]))


def _refuse_twice(columns: Sequence[str], name: str) -> None:
    if twice := _twice(columns):
        raise DataError(
            f"{name} has the column {twice} more than once",
            hint="write the file again with a name of its own for every column",
        )


def _rows(batch: Any) -> Iterator[dict[str, object] | Exception]:
    """Every row of a batch, or what stands against making Python values of it."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        yield from (_row(batch.slice(index, 1)) for index in range(batch.num_rows))


def _row(single: Any) -> dict[str, object] | Exception:
    try:
        fields: dict[str, object] = single.to_pylist()[0]
    except (ValueError, OverflowError) as fault:
        return fault
    return fields


def _without_nulls(value: object) -> object:
    """The objects inside a value without the keys that a row does not have: Parquet fills them in,
    because all rows of a column have the same keys.
    """
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _parquet_item(source: RowRef, fields: dict[str, object] | Exception) -> Item:
    if not isinstance(fields, Exception):
        return Record(source, {name: _without_nulls(value) for name, value in fields.items()})
    message = f"record {source.line} cannot be read: {str(fields).splitlines()[0]}"
    hint = "texts are UTF-8: write the column again as text"
    hint = hint if isinstance(fields, UnicodeError) else "leave the column out, or write it as text"
    return BadRow(source, (Problem(message, where=str(source), hint=hint),))
