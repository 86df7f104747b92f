"""Properties of the readers: what was written is read, byte for byte, and nothing else happens."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.readers import open_source
from llamafarm.data.records import BadRow, Item, Record
from llamafarm.data.scan import Pipeline
from llamafarm.errors import LlamafarmError
from tests.data.rows_on_disk import request_for

from .malformed.case import jsonl, row
from .malformed.mutate import mutated
from .malformed.packed import PACKS
from .malformed.tables import parquet_bytes

BOM = b"\xef\xbb\xbf"
MUTANTS = 500
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    _LEAVES | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.text(), VALUES, max_size=4)
BLANK = st.sampled_from([b"", b" ", b"\t ", b"\r"])


@dataclass(frozen=True)
class Lines:
    """A JSONL file: rows (None for a blank line), the bytes of each line with its ending."""

    rows: tuple[dict[str, Any] | None, ...]
    lines: tuple[bytes, ...]
    mark: bytes

    @property
    def content(self) -> bytes:
        """All bytes of the file."""
        return self.mark + b"".join(self.lines)


@st.composite
def jsonl_files(draw: st.DrawFn) -> Lines:
    """Rows with any line ending, spacing, blank lines between, and with or without a last one."""
    rows = draw(st.lists(st.none() | FIELDS, min_size=1, max_size=8))
    rows.append(draw(FIELDS))
    lines = []
    for fields in rows:
        ascii_only, separators = draw(st.booleans()), draw(st.sampled_from([None, (",", ":")]))
        text = draw(BLANK)
        if fields is not None:
            text += json.dumps(fields, ensure_ascii=ascii_only, separators=separators).encode()
        lines.append(text + draw(st.sampled_from([b"\n", b"\r\n", b" \n"])))
    if draw(st.booleans()):
        lines[-1] = lines[-1].rstrip(b"\r\n")
    return Lines(tuple(rows), tuple(lines), draw(st.sampled_from([b"", BOM])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


def _items(path: Path, content: bytes) -> list[Item]:
    path.write_bytes(content)
    return list(open_source(path).items())


@settings(deadline=None)
@given(jsonl_files())
def test_rows_of_jsonl_are_read_byte_for_byte(folder: Path, file: Lines) -> None:
    records = _items(folder / "r.jsonl", file.content)
    assert all(isinstance(record, Record) for record in records)
    kept = [(i, fields) for i, fields in enumerate(file.rows, start=1) if fields is not None]
    assert [(r.source.line, r.fields) for r in records] == kept
    assert [r.raw for r in records] == [file.lines[number - 1] for number, _ in kept]
    blank = sum(
        len(line) for line, fields in zip(file.lines, file.rows, strict=True) if fields is None
    )
    assert len(file.mark) + blank + sum(len(r.raw) for r in records) == len(file.content)


@settings(max_examples=30, deadline=None)
@given(jsonl_files(), st.sampled_from(sorted(PACKS)), st.integers(0, 200))
def test_rows_of_compressed_jsonl_are_those_of_the_file_inside(
    folder: Path, file: Lines, ending: str, cut: int
) -> None:
    inside = _items(folder / "r.jsonl", file.content)
    pack = PACKS[ending]
    packed = pack(file.content[:cut]) + pack(file.content[cut:])
    outside = _items(folder / f"r.jsonl{ending}", packed)
    assert [(r.source.line, r.fields, r.raw) for r in outside] == [
        (r.source.line, r.fields, r.raw) for r in inside
    ]


@settings(deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=6), st.sampled_from([None, 0, 2]), st.booleans())
def test_rows_of_a_json_list_are_read_in_order(
    folder: Path, rows: list[dict[str, Any]], indent: int | None, mark: bool
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=False).encode()
    records = _items(folder / "r.json", BOM * mark + text)
    assert [(r.source.line, r.fields) for r in records] == list(enumerate(rows, start=1))


_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_NAMES = st.text("abcdefgh", min_size=1, max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, str]]:
    names = draw(st.lists(_NAMES, min_size=1, max_size=5, unique=True))
    cells = st.lists(_CELLS, min_size=len(names), max_size=len(names)).filter(any)
    return [
        dict(zip(names, values, strict=True))
        for values in draw(st.lists(cells, min_size=1, max_size=6))
    ]


@settings(deadline=None)
@given(
    tables(),
    st.sampled_from([",", ";", "|", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
    st.booleans(),
)
def test_tables_are_read_as_they_were_written(
    folder: Path,
    rows: list[dict[str, str]],
    delimiter: str,
    ending: str,
    quoting: int,
    mark: bool,
    last_ending: bool,
) -> None:
    if any("\r" in cell for fields in rows for cell in fields.values()):
        quoting = csv.QUOTE_ALL  # The writer of Python 3.11 leaves a lone CR without quotes.
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, list(rows[0]), delimiter=delimiter, lineterminator=ending, quoting=quoting
    )
    writer.writeheader()
    starts = []
    for fields in rows:
        starts.append(buffer.getvalue().count("\n") + 1)
        writer.writerow(fields)
    text = buffer.getvalue() if last_ending else buffer.getvalue().removesuffix(ending)
    # A header of one column holds no delimiter by which it could be told.
    name = "r.tsv" if delimiter == "\t" else "r.csv"
    if len(rows[0]) == 1 and delimiter not in ",\t":
        return
    records = _items(folder / name, BOM * mark + text.encode())
    assert [(r.source.line, r.fields) for r in records] == list(zip(starts, rows, strict=True))


_COLUMNS = st.sampled_from(
    [
        st.none() | st.text(),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False),
        st.none() | st.booleans(),
        st.lists(st.text(max_size=3), max_size=3),
    ]
)


@st.composite
def parquet_columns(draw: st.DrawFn) -> dict[str, Sequence[Any]]:
    count = draw(st.integers(1, 6))
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
    return {name: draw(st.lists(draw(_COLUMNS), min_size=count, max_size=count)) for name in names}


@settings(max_examples=60, deadline=None)
@given(parquet_columns())
def test_rows_of_parquet_are_read_as_they_were_written(
    folder: Path, columns: dict[str, Sequence[Any]]
) -> None:
    records = _items(folder / "r.parquet", parquet_bytes(columns))
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    assert [(r.source.line, dict(r.fields)) for r in records] == list(enumerate(rows, start=1))


def _read_all(path: Path) -> tuple[list[Item], str]:
    """Every item, read as a row too; and what was refused. Any other error ends the test."""
    items: list[Item] = []
    try:
        pipeline = Pipeline.of(request_for(path))
        for item in open_source(path).items():
            items.append(item)
            row = pipeline.read(item)
            assert not isinstance(row, BadRow) or row.problems
    except LlamafarmError as refusal:
        assert refusal.exit_code == 2
        assert refusal.summary
        return items, refusal.render()
    return items, ""


NAMES = ["r.jsonl", "r.json", "r.csv", "r.tsv", "r.parquet", "r.jsonl.gz", "r.csv.zst"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.write_bytes(content)
    items, refusal = _read_all(path)
    if name == "r.jsonl" and not refusal:
        _check_lines(items, content)


def _check_lines(items: Sequence[Item], content: bytes) -> None:
    """Every line that is not blank is a record or a bad row, in order."""
    lines = content.removeprefix(BOM).split(b"\n")
    assert [item.source.line for item in items] == [
        number for number, line in enumerate(lines, start=1) if line.strip()
    ]


_TABLE = (
    b'question,answer\nWhy?,Because.\n"Who, then?","He said ""no"".\nThen he left."\nWho?,Me.\n'
)
GOOD: dict[str, Callable[[], bytes]] = {
    "r.jsonl": lambda: jsonl(
        row(1), '{"question": "Wä\\u00e9?", "answer": "\\"ß\\""}'.encode(), row(3)
    ),
    "r.json": lambda: b"[" + row(1) + b",\n" + row(2) + b"]\n",
    "r.csv": lambda: _TABLE,
    "r.tsv": lambda: _TABLE.replace(b",", b"\t"),
    "r.parquet": lambda: parquet_bytes({"question": ["a", "b", "c"], "answer": ["d", "e", None]}),
    "r.jsonl.gz": lambda: gzip.compress(jsonl(row(1), row(2)), mtime=0),
    "r.jsonl.zst": lambda: PACKS[".zst"](jsonl(row(1), row(2))),
}


@pytest.mark.parametrize("name", list(GOOD))
def test_a_changed_byte_is_read_or_refused_and_nothing_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = GOOD[name]()
    path.write_bytes(content)
    assert _read_all(path)[1] == ""
    chance = random.Random(4)
    told = 0
    for _ in range(MUTANTS):
        changed = mutated(content, chance)
        path.write_bytes(changed)
        items, refusal = _read_all(path)
        if name == "r.jsonl" and not refusal:
            _check_lines(items, changed)
        told += bool(refusal) or any(isinstance(item, BadRow) for item in items)
    assert told > MUTANTS / 10
