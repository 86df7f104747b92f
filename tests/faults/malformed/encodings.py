"""Files in other encodings than UTF-8, and bytes that no encoding has."""

from __future__ import annotations

import codecs

from .case import Case, bad_line, good_line, jsonl, refused, row

TEXT = jsonl(row(1), row(2), row(3)).decode()
UMLAUT = '{"question": "Wo tut es weh?", "answer": "Am Fuß, Schlüsselbein und Rücken."}\n'
CHINESE = '{"question": "发烧时应该做什么？", "answer": "多喝水，好好休息，必要时去看医生。"}\n'
GOOD_THEN_UMLAUT = jsonl(row(1)) + UMLAUT.encode("latin-1") + jsonl(row(3))


def _answer(raw: bytes) -> bytes:
    return b'{"question": "Why?", "answer": "' + raw + b'"}'


WIDE = (
    refused("UTF-16 LE with BOM", TEXT.encode("utf-16"), "iconv -f UTF-16 ", ":1 "),
    refused("UTF-16 BE with BOM", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "FE FF"),
    refused("UTF-16 LE without BOM", TEXT.encode("utf-16-le"), "iconv -f UTF-16LE", ":1 "),
    refused("UTF-16 BE without BOM", TEXT.encode("utf-16-be"), "iconv -f UTF-16BE", ":1 "),
    refused("UTF-16 of Chinese without BOM", (CHINESE * 3).encode("utf-16-le"), "UTF-16LE"),
    refused("UTF-16 cut inside a character", TEXT.encode("utf-16")[:-1], "UTF-16"),
    refused("UTF-16 mark and nothing else", codecs.BOM_UTF16_LE, "UTF-16"),
    refused("UTF-32 LE with BOM", TEXT.encode("utf-32"), "iconv -f UTF-32 "),
    refused("UTF-32 BE with BOM", codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"), "UTF-32"),
    refused("UTF-32 LE without BOM", TEXT.encode("utf-32-le"), "UTF-32"),
    refused("UTF-32 BE without BOM", TEXT.encode("utf-32-be"), "UTF-32"),
    refused("UTF-16 CSV, as Excel writes it", "question,answer\nWhy?,So.\n".encode("utf-16"),
            "UTF-16", "rows.utf8.csv", file="rows.csv"),
    refused("UTF-16 in a file with a space in its name", TEXT.encode("utf-16"), "my rows.jsonl' >",
            file="my rows.jsonl"),
    refused("UTF-16 JSON list", f"[{TEXT.splitlines()[0]}]".encode("utf-16"), "UTF-16",
            file="rows.json"),
)  # fmt: skip

NARROW = (
    Case("Latin-1 in one row", GOOD_THEN_UMLAUT, rows=(1, 3), bad={2: "byte 0xDF at column"}),
    Case(
        "Latin-1 throughout",
        UMLAUT.encode("latin-1") * 3,
        bad=dict.fromkeys((1, 2, 3), "iconv -f ISO-8859-1"),
    ),
    Case(
        "UTF-8 and Latin-1 mixed",
        UMLAUT.encode() + UMLAUT.encode("latin-1") + UMLAUT.replace("weh", "leid").encode(),
        rows=(1, 3),
        bad={2: "is not UTF-8"},
    ),
    bad_line("cp1252 quotes", _answer(b"\x93So.\x94"), "byte 0x93 at column 33"),
    bad_line("cp1252 euro", _answer(b"5 \x80"), "byte 0x80"),
    bad_line("Mac Roman", _answer("Ärzte".encode("mac_roman")), "is not UTF-8"),
    bad_line("Shift-JIS", _answer("薬を飲む".encode("shift_jis")), "is not UTF-8"),
    bad_line("GB18030", _answer("多喝水".encode("gb18030")), "is not UTF-8"),
    bad_line("KOI8-R", _answer("Врач".encode("koi8_r")), "is not UTF-8"),
    bad_line("EBCDIC", _answer(b"So.").decode().encode("cp500"), "is not UTF-8"),
    Case(
        "Latin-1 list of rows",
        b"[" + UMLAUT.encode("latin-1") + b"]",
        "rows.json",
        refused=("byte 0xDF", "is not UTF-8", "rows.json:1"),
    ),
    Case(
        "Latin-1 table",
        "question,answer\nWo?,Am Fuß.\nWann?,Heute.\n".encode("latin-1"),
        "rows.csv",
        rows=(3,),
        bad={2: "byte 0xDF at column 10"},
    ),
)

BYTES = (
    bad_line("overlong slash", _answer(b"\xc0\xaf"), "byte 0xC0"),
    bad_line("overlong NUL, as Java writes it", _answer(b"\xc0\x80"), "byte 0xC0"),
    bad_line("a surrogate as three bytes", _answer(b"\xed\xa0\x80"), "byte 0xED"),
    bad_line("a pair as six bytes (CESU-8)", _answer(b"\xed\xa0\xbd\xed\xb8\x80"), "byte 0xED"),
    bad_line("five bytes", _answer(b"\xf8\x88\x80\x80\x80"), "byte 0xF8"),
    bad_line("beyond Unicode", _answer(b"\xf4\x90\x80\x80"), "byte 0xF4"),
    bad_line("a continuation alone", _answer(b"\x80"), "byte 0x80"),
    bad_line("0xFF", _answer(b"\xff"), "byte 0xFF"),
    bad_line("a wrong byte before the row", b"\xfe" + row(2), "byte 0xFE at column 1"),
    bad_line("a wrong byte after the row", row(2) + b"\xfe", "byte 0xFE at column"),
    Case(
        "cut inside a character at the end",
        jsonl(row(1), row(2)) + b'{"question": "\xe2\x82',
        rows=(1, 2),
        bad={3: "byte 0xE2"},
    ),
    bad_line("a line cut inside a character", b'{"question": "\xe2\x82"}', "byte 0xE2"),
    good_line("the last character of Unicode", _answer("\U0010ffff".encode())),
    good_line("U+FFFF, which is no character", _answer("\uffff x".encode())),
    good_line("a character outside the BMP", _answer("😀".encode())),
)

MARKS = (
    Case("UTF-8 with BOM", codecs.BOM_UTF8 + jsonl(row(1), row(2)), rows=(1, 2)),
    Case("BOM and a blank first line", codecs.BOM_UTF8 + jsonl(b"", row(2)), rows=(2,)),
    Case(
        "BOM twice",
        codecs.BOM_UTF8 * 2 + jsonl(row(1), row(2)),
        rows=(2,),
        bad={1: "a byte order mark (BOM) inside the file, at column 1"},
    ),
    bad_line("BOM before a later row", codecs.BOM_UTF8 + row(2), "byte order mark (BOM)"),
    bad_line("BOM after a row", row(2) + codecs.BOM_UTF8, "byte order mark (BOM)"),
    bad_line("a line with nothing but a BOM", codecs.BOM_UTF8, "byte order mark (BOM)"),
    good_line("BOM inside a text", _answer(codecs.BOM_UTF8 + b"So.")),
    refused("a BOM and nothing else", codecs.BOM_UTF8, "no rows"),
    refused("a BOM and blank lines", codecs.BOM_UTF8 + b"\n \r\n\n", "no rows"),
    Case("a table with BOM", codecs.BOM_UTF8 + b"question,answer\nWhy?,So.\n", "r.csv", rows=(2,)),
    Case("a list with BOM", codecs.BOM_UTF8 + b"[" + row(1) + b"]", "r.json", rows=(1,)),
)


def _told(name: str, text: str, kind: str) -> Case:
    """Damage that was done before the file was written: it is right UTF-8, and told."""
    return good_line(f"told: {name}", _answer(text.encode()), (kind,))


TOLD = (
    _told("UTF-8 read as Latin-1", "Une journée à la plage, déjà vue".encode().decode("latin-1"),
          "mojibake"),
    _told("UTF-8 read as Windows-1252", "It’s “so”".encode().decode("cp1252", "replace"),
          "mojibake"),
    _told("letters that were lost", "Am Fu\ufffd", "replacement_character"),
    _told("characters that nobody sees", "a\u200bb\u202ec", "invisible_character"),
    _told("control characters of Latin-1", "It\x92s so, it\x92s so", "control_character"),
)  # fmt: skip

CASES = (*TOLD, *WIDE, *NARROW, *BYTES, *MARKS)
