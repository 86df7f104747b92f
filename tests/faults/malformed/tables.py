"""CSV and TSV files that are no tables, and Parquet files that are damaged or hold other things."""

from __future__ import annotations

import datetime
import decimal
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .case import Case, Maker, jsonl, refused, row

HEADER = b"question,answer\n"
FIRST = b"Why?,Because.\n"
LAST = b"What?,That.\n"


def _refused(name: str, content: bytes, *said: str, file: str = "rows.csv") -> Case:
    return refused(f"table: {name}", content, *said, file=file)


def _read(
    name: str,
    content: bytes,
    rows: tuple[int, ...] = (),
    bad: dict[int, str] | None = None,
    file: str = "rows.csv",
) -> Case:
    return Case(f"table: {name}", content, file, rows=rows, bad=bad or {})


QUOTES = (
    _read("a quote that is not closed", HEADER + FIRST + b'"What?,That.\nAnd?,So.\n', (2,),
          {3: "unexpected end of data"}),
    _read("a quote that is closed two rows later",
          HEADER + b'"What?,That.\nAnd?,So.\nHow?,"This"\n' + LAST, (5,), {2: "expected after"}),
    _read("letters after a closing quote", HEADER + b'"Why"?,Because.\n' + LAST, (3,),
          {2: "a quote inside a quoted cell is written twice"}),
    _read("quotes escaped with a backslash", HEADER + b'"a \\"b\\" c",d\n' + LAST, (3,),
          {2: "expected after"}),
    _read("a quote inside a cell without quotes", HEADER + b'5" wide,no\n' + LAST, (2, 3)),
    _read("a quote alone as the last line", HEADER + FIRST + b'"', (2,),
          {3: "unexpected end of data"}),
    _read("quotes doubled", HEADER + b'"He said ""no""","B"\n', (2,)),
    _read("single quotes", HEADER + b"'Why, then?','B'\n" + LAST, (3,), {2: "3 cells"}),
    _read("a cell over three lines", HEADER + b'"a\nb\nc",d\n' + LAST, (2, 5)),
    _read("a run of 30,001 quotes", HEADER + b'"' * 30_001 + b",b\n" + LAST, (),
          {2: "unexpected end of data"}),
)  # fmt: skip

WIDTHS = (
    _read("a cell too many", HEADER + b"Why?,Because.,And\n" + LAST, (3,),
          {2: "3 cells, but the header has 2 (question, answer)"}),
    _read("a cell too few", HEADER + b"Why?\n" + LAST, (3,), {2: "1 cell, but the header has 2"}),
    _read("a comma that is not quoted", HEADER + b"Why?,Well, so.\n", (), {2: "into quotes"}),
    _read("a comma at every end", HEADER + b"Why?,So.,\nWhat?,That.,\n", (),
          {2: "3 cells", 3: "3 cells"}),
    _read("every width but the right one", HEADER + b"a\na,b,c\na,b,c,d\n" + LAST, (5,),
          {2: "1 cell", 3: "3 cells", 4: "4 cells"}),
    _read("10,000 cells", HEADER + b"," * 9_999 + b"x\n" + LAST, (3,), {2: "10,000 cells"}),
    _read("tabs under a header with commas", HEADER + b"Why?\tSo.\n", (), {2: "1 cell"}),
    _read("blank rows", HEADER + b"\n" + FIRST + b"\r\n\n" + LAST, (3, 6)),
    _read("rows of nothing but separators", HEADER + FIRST + b",\n" + LAST, (2, 4)),
    _read("an empty cell", HEADER + b"Why?,\n" + LAST, (3,), {2: "answer: is empty"}),
    _read("a cell of spaces", HEADER + b"Why?,   \n" + LAST, (3,), {2: "answer: is empty"}),
)  # fmt: skip

HEADERS = (
    _refused("nothing", b"", "is empty"),
    _refused("blank lines", b"\n\r\n\n", "is empty"),
    _refused("a header alone", HEADER, "no rows"),
    _refused("a column twice", b"question,answer,question\na,b,c\n", "'question' more than once"),
    _refused("a header with a wrong byte", b"question,\xe4\na,b\n", "the header of", "byte 0xE4"),
    _refused("a header with a NUL", b"question,ans\0wer\na,b\n", "the header of", "NUL byte"),
    _refused("a header whose quote is not closed", b'"question,answer\na,b\n', "the header of"),
    _refused("two columns without a name", b"question,answer,,\na,b,,\n", "more than once"),
    _read("no header", FIRST + LAST, (), {2: "no known format has these fields: Why?, Because."}),
    _read("other names", b"frage,antwort\na,b\n", (), {2: "dataset.columns"}),
    _read("one column", b"question\nWhy?\n", (), {2: "answer"}),
    _read("Excel's sep=", b"sep=;\nquestion;answer\na;b\n", (),
          {2: "no known format", 3: "no known format"}),
    _read("names with spaces and capitals", b" Question , ANSWER\na,b\n", (2,)),
    _read("blank lines before the header", b"\n\n" + HEADER + FIRST, (4,)),
    _read("a name in quotes over two lines", b'"question","answer\nof it"\na,b\n', (),
          {3: "no such field"}),
)  # fmt: skip

CELLS = (
    _read("a NUL", HEADER + b"Why?,Be\0cause.\n" + LAST, (3,), {2: "NUL byte stands at column 8"}),
    _read("a file of NUL after the header", HEADER + b"\0" * 4096, (), {2: "NUL byte"}),
    _read("CRLF", b"question,answer\r\nWhy?,So.\r\nWhat?,That.\r\n", (2, 3)),
    _refused("CR", b"question,answer\rWhy?,So.\rWhat?,That.\r", "tr '\\r' '\\n'"),
    _read("CR in one row", HEADER + b"a,b\rc,d\n" + LAST, (3,), {2: "new-line character"}),
    _read("CR in a quoted cell", HEADER + b'"a\rb",c\n' + LAST, (2, 3)),
    _read("no final newline", HEADER + b"Why?,So.", (2,)),
    _read("the last row cut off", HEADER + FIRST + b"What", (2,), {3: "1 cell"}),
    _read("cells of 300,000 characters", HEADER + b"Why?," + b"x" * 300_000 + b"\n", (2,)),
    _read("semicolons", b"question;answer\nWhy?;So, then.\n", (2,)),
    _read("bars", b"question|answer\nWhy?|So.\n", (2,)),
    _read("tabs under the name of a CSV", b"question\tanswer\nWhy?\tSo.\n", (2,)),
    _read("commas under the name of a TSV", HEADER + FIRST, (), {2: "no known format"}, "rows.tsv"),
    _read("a tab too many", b"question\tanswer\na\tb\tc\n", (), {2: "3 cells"}, "rows.tsv"),
    _read("JSONL under the name of a CSV", jsonl(row(1), row(2)), (), {2: "no known format"}),
    _read("an escape sequence", HEADER + b"\x1b[31mWhy?,So.\n", (2,)),
    _read("a zip archive, as .xlsx is", b"PK\x03\x04\x14\n\x01\x02\n", (), {2: "no known format"}),
    _read("a wrong byte in the last row", HEADER + FIRST + b"What?,\xff", (2,), {3: "byte 0xFF"}),
    _read("wrong bytes in a cell over two lines", HEADER + b'"a\xff\nb\xff",c\n' + LAST, (4,),
          {2: "byte 0xFF", 3: "byte 0xFF"}),
)  # fmt: skip


def _parquet(columns: dict[str, Sequence[Any]], **types: Any) -> Maker:
    """What writes a Parquet file of these columns."""

    def make(path: Path) -> None:
        path.write_bytes(parquet_bytes(columns, **types))

    return make


def parquet_bytes(columns: dict[str, Sequence[Any]], **types: Any) -> bytes:
    """A Parquet file of these columns. types: of columns whose Arrow type is not inferred."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [pa.array(values, types.get(name)) for name, values in columns.items()]
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays, names=list(columns)), buffer)
    return buffer.getvalue()


def _qa(path: Path, rows: int = 3) -> bytes:
    numbers = range(1, rows + 1)
    data = parquet_bytes(
        {
            "question": [f"What is {i}?" for i in numbers],
            "answer": [f"It is the number {i}." for i in numbers],
        }
    )
    path.write_bytes(data)
    return data


def _cut(path: Path) -> None:
    path.write_bytes(_qa(path)[:-1])


def _half(path: Path) -> None:
    data = _qa(path)
    path.write_bytes(data[: len(data) // 2])


def _without_head(path: Path) -> None:
    path.write_bytes(_qa(path)[4:])


def _footer_size_too_large(path: Path) -> None:
    data = _qa(path)
    path.write_bytes(data[:-8] + b"\xff\xff\xff\x7f" + data[-4:])


def _footer_of_zeros(path: Path) -> None:
    data = _qa(path)
    size = int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[: -8 - size] + b"\0" * size + data[-8:])


def _pages_of_zeros(path: Path) -> None:
    data = _qa(path)
    size = int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:4] + b"\0" * (len(data) - 12 - size) + data[-8 - size :])


def _encrypted(path: Path) -> None:
    path.write_bytes(_qa(path)[:-4] + b"PARE")


def _arrow(path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"question": ["a"], "answer": ["b"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write(table)


def _not_utf8(path: Path) -> None:
    import pyarrow as pa

    good, broken = b"It is so.", b"\xff\xfe"
    answers = pa.StringArray.from_buffers(
        2,
        pa.py_buffer(
            b"".join(n.to_bytes(4, "little") for n in (0, len(good), len(good) + len(broken)))
        ),
        pa.py_buffer(good + broken),
    )
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"question": ["What?", "Why?"], "answer": answers}), path)


def _column_twice(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["question"] * 2), path)


def _name_not_utf8(path: Path) -> None:
    path.write_bytes(_qa(path).replace(b"question", b"quest\xefon"))


def _time_beyond_years(path: Path) -> None:
    import pyarrow as pa

    times = pa.array([0, 2**62], pa.int64()).cast(pa.timestamp("us"))
    path.write_bytes(parquet_bytes({"question": ["a", "b"], "answer": ["c", "d"], "t": times}))


def _parquet_refused(name: str, content: bytes | Maker, *said: str) -> Case:
    return refused(f"Parquet: {name}", content, *said, file="rows.parquet")


def _parquet_read(
    name: str, content: Maker, rows: tuple[int, ...] = (), bad: dict[int, str] | None = None
) -> Case:
    return Case(f"Parquet: {name}", content, "rows.parquet", rows=rows, bad=bad or {})


DAMAGED = (
    _parquet_refused("nothing", b"", "is empty"),
    _parquet_refused("four bytes", b"PAR1", "cannot be read as Parquet"),
    _parquet_refused("marks without a footer", b"PAR1" + b"\0" * 8 + b"PAR1", "as Parquet"),
    _parquet_refused("JSONL under this name", jsonl(row(1)), "as Parquet", "convert it to JSONL"),
    _parquet_refused("the last byte is missing", _cut, "as Parquet", "fetch it again"),
    _parquet_refused("cut in half", _half, "as Parquet", "fetch it again"),
    _parquet_refused("the first bytes are missing", _without_head, "as Parquet"),
    _parquet_refused("a footer larger than the file", _footer_size_too_large, "as Parquet"),
    _parquet_refused("a footer of zeros", _footer_of_zeros, "as Parquet"),
    _parquet_refused("pages of zeros", _pages_of_zeros, "as Parquet"),
    _parquet_refused("encrypted", _encrypted, "as Parquet"),
    _parquet_refused("an Arrow file under this name", _arrow, "as Parquet"),
    _parquet_refused("a column whose name is not UTF-8", _name_not_utf8, "as Parquet"),
    _parquet_refused("a column twice", _column_twice, "'question' more than once"),
    _parquet_refused("no rows", _parquet({"question": [], "answer": []}), "no rows"),
    _parquet_refused("no columns", _parquet({}), "no rows"),
)

HELD = (
    _parquet_read("text that is not UTF-8", _not_utf8, (1,), {2: "record 2 cannot be read"}),
    _parquet_read("a time beyond all years", _time_beyond_years, (1,), {2: "record 2 cannot"}),
    _parquet_read("nulls", _parquet({"question": ["a", None], "answer": ["b", "c"]}), (1,),
                  {2: "question: expected text, found null"}),
    _parquet_read("a column of nulls", _parquet({"question": ["a"], "answer": [None]}), (),
                  {1: "answer: expected text, found null"}),
    _parquet_read("numbers as answers", _parquet({"question": ["a"], "answer": [5]}), (),
                  {1: "answer: expected text, found a number (5)"}),
    _parquet_read("bytes as answers", _parquet({"question": ["a"], "answer": [b"b"]}), (),
                  {1: "answer: expected text, found a bytes"}),
    _parquet_read("other names", _parquet({"frage": ["a"], "antwort": ["b"]}), (),
                  {1: "no known format has these fields: frage, antwort"}),
    _parquet_read("turns that are texts", _parquet({"messages": [["hello"]]}), (),
                  {1: "messages[0]: expected a turn"}),
    _parquet_read("turns that are null", _parquet({"messages": [[None]]}), (),
                  {1: "messages[0]: expected a turn with role and content, found null"}),
    _parquet_read("dates and decimals beside the texts", _parquet({
        "question": ["a"], "answer": ["b"], "day": [datetime.date(2026, 1, 1)],
        "price": [decimal.Decimal("1.50")]}), (1,)),
    _parquet_read("whole files of bytes", _parquet({"text": [b"\x89PNG"]}), (),
                  {1: "text: expected text, found a bytes"}),
)  # fmt: skip

CASES = (*QUOTES, *WIDTHS, *HEADERS, *CELLS, *DAMAGED, *HELD)
