from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llamafarm.data import encoding
from llamafarm.data.readers import open_source
from llamafarm.errors import DataError

from .rows_on_disk import good_and_bad


def _read(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    return good_and_bad(open_source(path).items())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", b"question,answer\nWhy?,Because.\n"),
        ("r.csv", b"\xef\xbb\xbfquestion,answer\r\nWhy?,Because.\r\n"),
        ("r.csv", b"question;answer\nWhy?;Because."),
        ("r.csv", b'"question" ,"answer"\nWhy?,Because.\n\n'.replace(b" ,", b",")),
        ("r.tsv", b"question\tanswer\nWhy?\tBecause.\n"),
        ("r.TSV", b"question\tanswer\nWhy?\tBecause.\n"),
    ],
)
def test_tables_are_read_with_their_header(name: str, content: bytes, tmp_path: Path) -> None:
    good, bad = _read(tmp_path, name, content)
    assert [dict(r.fields) for r in good] == [{"question": "Why?", "answer": "Because."}]
    assert [r.source.line for r in good] == [2]
    assert not bad


@pytest.mark.parametrize("blank", [b"\n", b"\r\n\n", b"\xef\xbb\xbf\n"])
def test_the_separator_is_that_of_the_header_also_after_blank_lines(
    blank: bytes, tmp_path: Path
) -> None:
    good, bad = _read(tmp_path, "r.csv", blank + b"question;answer\nWhy?;Because.\n")
    assert [dict(r.fields) for r in good] == [{"question": "Why?", "answer": "Because."}]
    assert not bad


def test_a_cell_over_several_lines_is_one_row_named_by_its_first_line(tmp_path: Path) -> None:
    content = b'q,a\n"one\ntwo\r\nthree",x\n\n"say ""hi""",y\n'
    good, bad = _read(tmp_path, "r.csv", content)
    assert [(r.source.line, r.fields["q"]) for r in good] == [
        (2, "one\ntwo\r\nthree"),
        (6, 'say "hi"'),
    ]
    assert not bad


def test_a_cell_may_be_longer_than_the_csv_modules_own_limit(tmp_path: Path) -> None:
    good, _ = _read(tmp_path, "r.csv", b"q,a\nx," + b"y" * 200_000 + b"\n")
    assert len(str(good[0].fields["a"])) == 200_000


def test_faults_of_a_table_are_named_and_the_rows_after_them_are_read(tmp_path: Path) -> None:
    content = b'q,a\n1,2\n3\n4,5,6\n\xe4,7\n"8"x,9\n10,11\n'
    good, bad = _read(tmp_path, "r.csv", content)
    assert [r.source.line for r in good] == [2, 7]
    assert [(b.source.line, b.reason) for b in bad] == [
        (3, "1 cell, but the header has 2 (q, a)"),
        (4, "3 cells, but the header has 2 (q, a)"),
        (5, "byte 0xE4 at column 1 (byte 17 of the file) is not UTF-8"),
        (6, "not readable as a row of a table: ',' expected after '\"'"),
    ]


def test_a_quote_that_is_never_closed_is_a_fault_at_the_row_that_opens_it(tmp_path: Path) -> None:
    good, bad = _read(tmp_path, "r.csv", b'q,a\n1,2\n3,"4\n5,6\n')
    assert [r.source.line for r in good] == [2]
    assert [b.source.line for b in bad] == [3]


def test_a_wrong_byte_in_the_last_row_is_not_lost(tmp_path: Path) -> None:
    _, bad = _read(tmp_path, "r.csv", b"q,a\n\xe4,7")
    assert [b.source.line for b in bad] == [2]


def test_lines_that_end_in_cr_are_refused_with_the_command_that_mends_them(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, "r.csv", b"q,a\r1,2\r")
    assert "tr '\\r' '\\n'" in caught.value.render()


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'a' more than once"):
        _read(tmp_path, "r.csv", b"q,a,a\n1,2,3\n")


def test_a_header_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for content in (b"q,\xe4\n1,2\n", b"q,a\0\n1,2\n", b'"q"x,a\n1,2\n'):
        with pytest.raises(DataError, match=r"the header of .* cannot be read") as caught:
            _read(tmp_path, "r.csv", content)
        assert caught.value.problems[0].where.endswith("r.csv:1")


def test_blank_lines_before_the_header_are_passed_over(tmp_path: Path) -> None:
    good, bad = _read(tmp_path, "r.csv", b"\n\nq,a\n1,2\n")
    assert [(r.source.line, dict(r.fields)) for r in good] == [(4, {"q": "1", "a": "2"})]
    assert not bad


def test_a_nul_byte_is_a_fault_of_its_row(tmp_path: Path) -> None:
    good, bad = _read(tmp_path, "r.csv", b"q,a\n1,2\n3,\0\n5,6\n")
    assert [r.source.line for r in good] == [2, 4]
    assert [(b.source.line, b.reason) for b in bad] == [(3, "a NUL byte stands at column 3")]


def test_a_line_that_is_too_long_is_a_fault_of_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_LINE_BYTES", 100)
    good, bad = _read(tmp_path, "r.csv", b"q,a\n1,2\n" + b"x" * 200 + b",y\n5,6\n")
    assert [r.source.line for r in good] == [2, 4]
    assert [b.source.line for b in bad] == [3]
    assert "a line of 203 bytes" in bad[0].reason


def test_a_wide_header_is_not_written_out_for_every_bad_row(tmp_path: Path) -> None:
    header = ",".join(f"column{i}" for i in range(50_000)).encode()
    _, bad = _read(tmp_path, "r.csv", header + b"\n1\n" * 20_000)
    assert len(bad) == 20_000
    assert len(bad[0].reason) < 200


def test_parquet_rows_are_read_in_order_across_batches(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    numbers = list(range(2500))
    pq.write_table(pa.table({"n": numbers, "t": [str(n) for n in numbers]}), path)
    good, _ = good_and_bad(open_source(path).items())
    assert [r.fields["n"] for r in good] == numbers
    assert [r.source.line for r in good] == [n + 1 for n in numbers]


@pytest.mark.parametrize("content", [b"PAR1 not really", b"{}", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_damaged_parquet_file_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        _read(tmp_path, "r.parquet", content)


def test_a_parquet_text_that_is_not_utf8_is_a_fault_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    raw = pa.array([b"one", b"\xff", b"three"], pa.binary())
    pq.write_table(pa.table({"t": pa.Array.from_buffers(pa.string(), 3, raw.buffers())}), path)
    good, bad = good_and_bad(open_source(path).items())
    assert [(r.source.line, r.fields["t"]) for r in good] == [(1, "one"), (3, "three")]
    assert [b.source.line for b in bad] == [2]
    assert "record 2 cannot be read: 'utf-8' codec can't decode byte 0xff" in bad[0].reason


def test_a_parquet_column_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    columns = [pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["a", "a"]), path)
    with pytest.raises(DataError, match="has the column 'a' more than once"):
        list(open_source(path).items())
