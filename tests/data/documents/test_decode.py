from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

import pytest

from llamafarm.data.documents.decode import (
    NO_CHARACTER,
    STRAY_BYTES,
    SourceLine,
    find_encoding,
    read_text_lines,
)
from llamafarm.data.documents.ledger import Ledger
from llamafarm.errors import DataError


def encoding_of(data: bytes, declared: str = "") -> str:
    return str(find_encoding(lambda: io.BytesIO(data), "x.txt", declared))


def lines_of(data: bytes, ledger: Ledger | None = None) -> Iterator[SourceLine]:
    encoding = find_encoding(lambda: io.BytesIO(data), "x.txt")
    of_file = (ledger or Ledger()).of_file("x.txt", "line")
    return read_text_lines(lambda: io.BytesIO(data), encoding, of_file)


@pytest.mark.parametrize(
    ("text", "codec", "found"),
    [
        ("plain", "ascii", "UTF-8"),
        ("Größe", "utf-8", "UTF-8"),
        ("Größe", "utf-8-sig", "UTF-8 (byte order mark)"),
        ("Größe", "utf-16", "UTF-16 (byte order mark)"),
        ("Größe", "utf-32", "UTF-32 (byte order mark)"),
        ("Größe, and words with spaces\n", "utf-16-le", "UTF-16LE (no mark)"),
        ("Größe, and words with spaces\n", "utf-16-be", "UTF-16BE (no mark)"),
        ("Привет, как дела?\n", "utf-16-le", "UTF-16LE (no mark)"),
        ("Hello there\n", "utf-32-be", "UTF-32BE (no mark)"),
        ("été", "latin-1", "cp1252 (detected)"),
        ("Die Übung für Männer: Größe und Höhe.", "cp1252", "cp1252 (detected)"),
        ("It costs 5 € – “really”, x² and 39°", "cp1252", "cp1252 (detected)"),
        ("Zażółć gęślą jaźń, a potem idź do domu.", "cp1250", "cp1250 (detected)"),
        ("Привет, как дела? Сегодня хорошая погода.", "cp1251", "cp1251 (detected)"),
        ("Привет, как дела? Сегодня хорошая погода.", "koi8_r", "koi8_r (detected)"),
        ("日本語のテキストです。これは例です。", "shift_jis", "cp932 (detected)"),
        ("你好，世界。这是一个例子。", "gb18030", "gb18030 (detected)"),
    ],
)
def test_the_encoding_is_found_and_the_text_is_whole(text: str, codec: str, found: str) -> None:
    data = text.encode(codec)
    assert encoding_of(data) == found
    assert "\n".join(line.text for line in lines_of(data)) == text.rstrip("\n")


def test_what_a_page_declares_comes_before_a_guess_and_after_its_bytes() -> None:
    assert encoding_of("été".encode("cp1250"), "windows-1250") == "windows-1250 (as it declares)"
    assert encoding_of("été".encode(), "windows-1250") == "UTF-8"


@pytest.mark.parametrize(
    "declared",
    ["no-such-codec", "undefined", "utf-16", "utf-32-le", "idna", "hex", "utf-7", "cp037"],
)
def test_what_a_page_declares_falsely_is_named_beside_the_encoding_that_reads_it(
    declared: str,
) -> None:
    data = "été, début\n".encode("cp1252")
    encoding = find_encoding(lambda: io.BytesIO(data), "x.html", declared)
    assert str(encoding) == f"cp1252 (detected; not {declared}, as it declares)"
    lines = read_text_lines(lambda: io.BytesIO(data), encoding, Ledger().of_file("x", "line"))
    assert [line.text for line in lines] == ["été, début"]


def test_single_bytes_that_are_not_utf8_are_read_as_cp1252_and_noted_by_line() -> None:
    ledger = Ledger()
    data = "ünïcödé\n".encode() * 3 + b"caf\xe9 and caf\xc3\xa9\n"
    assert encoding_of(data) == "UTF-8 (with stray bytes of cp1252)"
    assert [line.text for line in lines_of(data, ledger)][-1] == "café and café"
    (tally,) = ledger.all_changed()
    assert (tally.what, tally.first[0].where) == (STRAY_BYTES, "x.txt:4")


def test_bytes_after_a_mark_that_are_not_utf8_are_read_as_cp1252() -> None:
    ledger = Ledger()
    data = codecs.BOM_UTF8 + b"\xe9t\xe9\nplain\n"
    assert encoding_of(data) == "UTF-8 (byte order mark, with stray bytes of cp1252)"
    assert [line.text for line in lines_of(data, ledger)] == ["été", "plain"]
    assert [(tally.what, tally.count) for tally in ledger.all_changed()] == [(STRAY_BYTES, 1)]


def test_bytes_that_are_no_character_are_replaced_and_noted() -> None:
    ledger = Ledger()
    data = "Hello, some words here\n".encode("utf-16") + b"\x00"
    assert [line.text for line in lines_of(data, ledger)] == ["Hello, some words here", "\ufffd"]
    assert [tally.what for tally in ledger.all_changed()] == [NO_CHARACTER]


def test_lines_end_with_lf_crlf_or_cr() -> None:
    lines = list(lines_of(b"a\r\nb\rc\n\nd"))
    assert [(line.text, line.number) for line in lines] == [
        ("a", 1),
        ("b", 2),
        ("c", 3),
        ("", 4),
        ("d", 5),
    ]


def test_a_long_line_comes_in_pieces_that_end_between_words() -> None:
    text = "words " * 50_000 + "end"
    pieces = list(lines_of(f"{text}\nnext".encode()))
    assert "".join(piece.text for piece in pieces[:-1]) == text
    assert all(piece.text.endswith(" ") for piece in pieces[:-2])
    assert [piece.goes_on for piece in pieces[-3:]] == [True, False, False]
    assert pieces[-1] == SourceLine("next", 2)
    assert max(len(piece.text) for piece in pieces) <= 2 * 65_536


@pytest.mark.parametrize("chars", range(131_068, 131_075))
def test_the_end_of_a_long_line_is_mended_too(chars: int) -> None:
    text = ("é" * 4_000 + "word " * 50_000)[: chars - 4] + " caf"
    pieces = list(lines_of(text.encode() + b"\xe9"))
    assert "".join(piece.text for piece in pieces) == f"{text}é"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bytes(range(256)) * 20 + b"\0" * 200, "is no text"),
        (b"%PDF-1.7 and so on", "is a PDF file"),
        (b"PK\x03\x04rest", "is a zip archive"),
    ],
)
def test_a_file_that_is_no_text_is_refused_with_a_way_out(data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        encoding_of(data)
    assert caught.value.hint
