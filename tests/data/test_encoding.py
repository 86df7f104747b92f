from __future__ import annotations

import io

import pytest

from llamafarm.data import encoding
from llamafarm.data.encoding import (
    LongLine,
    conversion_hint,
    decode_line,
    read_lines,
    refuse_wide_encoding,
)
from llamafarm.data.records import BadRow
from llamafarm.data.rows import RowRef
from llamafarm.errors import DataError


def test_lines_keep_their_endings() -> None:
    content = b"one\ntwo\r\n\nthree"
    assert list(read_lines(io.BytesIO(content))) == [b"one\n", b"two\r\n", b"\n", b"three"]


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_a_line_that_is_too_long_is_counted_and_not_kept(
    ending: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_LINE_BYTES", 8)
    longest, longer = b"1234567\n", b"x" * 3_000_000
    lines = list(read_lines(io.BytesIO(longest + longer + ending + (b"end" if ending else b""))))
    assert lines[0] == longest
    assert lines[1] == LongLine(len(longer) + len(ending))
    assert lines[2:] == ([b"end"] if ending else [])


@pytest.mark.parametrize("length", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_a_line_of_any_length_below_is_read_whole(length: int) -> None:
    content = b"x" * (length - 1) + b"\n"
    assert list(read_lines(io.BytesIO(content + b"end"))) == [content, b"end"]
    assert list(read_lines(io.BytesIO(b"begin\n" + content[:-1]))) == [b"begin\n", content[:-1]]


def test_a_long_line_as_a_row_says_how_long_it_is_and_how_long_it_may_be() -> None:
    bad = LongLine(300_000_000).refused(RowRef("r.jsonl", 7))
    assert bad.problems[0].where == "r.jsonl:7"
    assert "300,000,000 bytes" in bad.reason
    assert "256 MiB" in bad.reason


def test_a_wrong_byte_is_named_by_its_place_in_line_and_file() -> None:
    bad = decode_line(b"ab\xe4", RowRef("r.csv", 3), 100)
    assert isinstance(bad, BadRow)
    assert "byte 0xE4 at column 3 (byte 103 of the file)" in bad.reason


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("d/r.csv", "iconv -f X -t UTF-8 d/r.csv > d/r.utf8.csv"),
        ("d/r.csv.gz", "gunzip -c d/r.csv.gz | iconv -f X -t UTF-8 > d/r.utf8.csv"),
    ],
)
def test_the_hint_converts_what_is_inside_a_compressed_file(name: str, command: str) -> None:
    assert f"`{command}`" in conversion_hint(name, "X")


def test_latin_text_in_utf16_is_told_from_text_with_some_nul_bytes() -> None:
    with pytest.raises(DataError, match="UTF-16LE"):
        refuse_wide_encoding("question".encode("utf-16-le"), "r.csv")
    refuse_wide_encoding(b"question\0\0\0 and answer", "r.csv")
