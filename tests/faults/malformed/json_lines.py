"""JSONL files whose lines are no rows: bytes, line endings, syntax, numbers, keys, depth."""

from __future__ import annotations

import json
from pathlib import Path

from .case import Case, bad_line, bad_row, good_line, jsonl, refused, row

GOOD = b'{"question": "Why?", "answer": "Because."}'
DEEP = 10_000


def _question(raw: bytes) -> bytes:
    return b'{"question": "' + raw + b'", "answer": "Because."}'


def _field(raw: bytes) -> bytes:
    return b'{"question": "Why?", "answer": "Because.", "x": ' + raw + b"}"


CONTROL = (
    bad_line("NUL in a text", _question(b"Why\0?"), "a NUL byte"),
    bad_line("NUL after the row", GOOD + b"\0" * 50, "a NUL byte"),
    bad_line("NUL before the row", b"\0" + GOOD, "a NUL byte"),
    bad_line("a line of NUL", b"\0" * 5000, "a NUL byte"),
    Case("a file of NUL", b"\0" * 5000, bad={1: "a NUL byte"}),
    Case(
        "a tail of NUL, as after a power cut",
        jsonl(row(1), row(2)) + b"\0" * 4096,
        rows=(1, 2),
        bad={3: "where writing a file was cut off"},
    ),
    good_line("NUL as an escape", _question(b"Why\\u0000?")),
    bad_line("a tab in a text", _question(b"Why\t?"), "control character"),
    bad_line("an escape sequence in a text", _question(b"\x1b[31mWhy?"), "control character"),
    bad_line("a carriage return in a text", _question(b"Why\rnot?"), "control character"),
    bad_line("a backspace in a text", _question(b"Why\b?"), "control character"),
    bad_line("Ctrl-Z, as DOS ends a file", b"\x1a", "Expecting value at column 1"),
    bad_line("a form feed between tokens", b'{"question":\x0c"Why?", "answer": "B"}', "column 13"),
    bad_line("a no-break space between tokens", '{"question":\xa0"Why?"}'.encode(), "column 13"),
    bad_line("a record separator (RFC 7464)", b"\x1e" + GOOD, "Expecting value at column 1"),
    good_line("DEL in a text", _question(b"Why\x7f?")),
    good_line("U+2028 in a text", _question("Why\u2028not?".encode())),
    good_line("U+0085 in a text", _question("Why\x85not?".encode())),
    good_line("file separators as escapes", _question(b"\\u001c\\u001d\\u001e?")),
)  # fmt: skip

ENDINGS = (
    Case("CRLF", b"\r\n".join([row(1), row(2), row(3), b""]), rows=(1, 2, 3)),
    Case("LF and CRLF mixed", row(1) + b"\r\n" + row(2) + b"\n" + row(3) + b"\r\n", rows=(1, 2, 3)),
    Case("CR", b"\r".join([row(1), row(2), row(3)]), bad={1: "tr '\\r' '\\n'"}),
    Case("CR CR LF", b"\r\r\n".join([row(1), row(2), b""]), rows=(1, 2)),
    Case("LF CR", b"\n\r".join([row(1), row(2), b""]), rows=(1, 2)),
    Case("one row that ends in CR", row(1) + b"\r", rows=(1,)),
    Case("no final newline", row(1) + b"\n" + row(2), rows=(1, 2)),
    Case("blank lines all over", b"\n\n" + row(1) + b"\n \t\r\n" + row(2) + b"\n\n", rows=(3, 5)),
    Case("5,000 blank lines first", b"\n" * 5000 + jsonl(row(1)), rows=(5001,)),
    Case("form feeds between rows", jsonl(row(1), b"\x0c", row(2)), rows=(1, 3)),
    Case(
        "U+2028 between rows",
        "\u2028".encode().join([row(1), row(2)]),
        bad={1: "Extra data at column"},
    ),
    refused("an empty file", b"", "is empty", 'a row looks like {"question"'),
    refused("one newline", b"\n", "is empty"),
    refused("nothing but blank lines", b"\n \t\r\n" * 3000, "is empty"),
)

SYNTAX = (
    bad_line("single quotes", b"{'question': 'Why?', 'answer': 'B'}", "JSON takes double quotes"),
    bad_line("a Python tuple", b"('Why?', 'Because.')", "Expecting value at column 1"),
    bad_line("None", b'{"question": None, "answer": "B"}', "Expecting value at column 14"),
    bad_line("True", _field(b"True"), "Expecting value"),
    bad_line("undefined", _field(b"undefined"), "Expecting value"),
    bad_line("keys without quotes", b'{question: "Why?", answer: "B"}', "double quotes"),
    bad_line("a trailing comma", b'{"question": "Why?", "answer": "B",}', "not valid JSON"),
    bad_line("a comma after the row, as in a list", GOOD + b",", "Extra data at column 43"),
    bad_line("a missing comma", b'{"question": "Why?" "answer": "B"}', "',' delimiter"),
    bad_line("a missing colon", b'{"question" "Why?"}', "':' delimiter"),
    bad_line("two colons", b'{"question":: "Why?"}', "Expecting value at column 13"),
    bad_line("a missing opening brace", b'"question": "Why?", "answer": "B"}', "Extra data"),
    bad_line("a closing brace too many", GOOD + b"}", "Extra data"),
    bad_line("a bracket that closes a brace", b'{"question": "Why?", "answer": "B"]', "delimiter"),
    bad_line("quotes that are not escaped", _question(b'He said "Why?" and left'), "delimiter"),
    bad_line("an unknown escape", _question(b"C:\\data"), "escape at column 17"),
    bad_line("a short Unicode escape", _question(b"\\u12"), "escape"),
    bad_line("a Unicode escape of no digits", _question(b"\\uZZZZ"), "escape"),
    bad_line("a line comment", b"// rows about reasons", "Expecting value at column 1"),
    bad_line("a hash comment", b"# rows about reasons", "Expecting value at column 1"),
    bad_line("a comment in the row", b'{"question": /* ? */ "Why?"}', "Expecting value"),
    bad_line("two rows on a line", GOOD + GOOD, "start a new line after each closing brace"),
    bad_line("two rows with a space between", GOOD + b" " + GOOD, "one row a line"),
    bad_line("bare words", b"question: Why? answer: Because.", "Expecting value at column 1"),
    bad_line("a log line", b"2026-01-01 INFO " + GOOD, "Extra data at column 5"),
    bad_line("a code fence", b"```json", "Expecting value at column 1"),
    bad_line("a row as the text of a row", json.dumps(GOOD.decode()).encode(), "found text"),
    bad_line("a list", b'["Why?", "Because."]', "expected an object, found a list"),
    bad_line("a text", b'"Why?"', 'expected an object, found text ("Why?")'),
    bad_line("a number", b"42", "found a number (42)"),
    bad_line("null", b"null", "found null"),
    bad_line("true", b"true", "found true"),
    bad_line("an empty object", b"{}", "no known format has these fields: no fields"),
    bad_line("an empty list", b"[]", "found a list"),
    Case(
        "a conflict that was not resolved",
        jsonl(row(1), b"<<<<<<< HEAD", row(3), b"=======", row(5), b">>>>>>> main"),
        rows=(1, 3, 5),
        bad=dict.fromkeys((2, 4, 6), "Expecting value at column 1"),
    ),
    Case(
        "a row over several lines",
        b'{\n"question": "Why?",\n"answer": "B"\n}\n',
        bad={1: "belong in a JSON list", 2: "Extra data", 3: "Extra data", 4: "Expecting value"},
    ),
    Case(
        "a list of rows",
        b"[\n" + row(1) + b",\n" + row(2) + b"\n]\n",
        rows=(3,),
        bad={1: "named .json, not .jsonl", 2: "Extra data", 4: "Expecting value"},
    ),
    Case("a list on one line", b"[" + row(1) + b"]\n", bad={1: "named .json, not .jsonl"}),
    Case(
        "a table under this name",
        b"question,answer\nWhy?,Because.\n",
        bad=dict.fromkeys((1, 2), "Expecting value at column 1"),
    ),
    Case(
        "a page that says the file is gone",
        b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
        bad=dict.fromkeys((1, 2), "Expecting value at column 1"),
    ),
    Case(
        "a pointer of Git LFS",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        bad=dict.fromkeys((1, 2, 3), "Expecting value at column 1"),
    ),
    Case("a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", bad={1: "0x89", 2: "", 3: ""}),
    Case("a zip archive", b"PK\x03\x04\x14\0\0\0\x08\0" + b"\xa1" * 40, bad={1: "0xA1"}),
    Case("a Parquet file", b"PAR1\x15\x04\x15\x80" + b"\xf5" * 40 + b"PAR1", bad={1: "0x80"}),
)

NUMBERS = (
    bad_line("NaN", _field(b"NaN"), "NaN is not JSON"),
    bad_line("Infinity", _field(b"Infinity"), "Infinity is not JSON"),
    bad_line("minus Infinity", _field(b"-Infinity"), "-Infinity is not JSON"),
    bad_line("1e400", _field(b"1e400"), "the number 1e400 is too large"),
    bad_line("minus 1e400", _field(b"-1e400"), "the number -1e400 is too large"),
    bad_line("4,301 digits", _field(b"9" * 4301), "a number of 4,301 digits; at most 4,300"),
    bad_line("a million digits", _field(b"9" * 1_000_000), "1,000,000 digits"),
    bad_line("a million digits and an exponent", _field(b"9" * 1_000_000 + b"e1"), "too large"),
    bad_line("a leading zero", _field(b"01"), "delimiter"),
    bad_line("a plus sign", _field(b"+1"), "Expecting value"),
    bad_line("no digit before the point", _field(b".5"), "Expecting value"),
    bad_line("no digit after the point", _field(b"5."), "delimiter"),
    bad_line("hexadecimal", _field(b"0xFF"), "delimiter"),
    bad_line("underscores", _field(b"1_000"), "delimiter"),
    bad_line("a decimal comma", _field(b"1,5"), "double quotes"),
    bad_line("a minus alone", _field(b"-"), "Expecting value"),
    good_line("4,300 digits", _field(b"9" * 4300)),
    good_line("a number too small for a float", _field(b"1e-400")),
    good_line("a million decimals", _field(b"0." + b"9" * 1_000_000)),
    good_line("minus zero", _field(b"-0.0")),
)

KEYS = (
    bad_line("a key twice", b'{"answer": "A", "question": "Q", "answer": "B"}', '"answer" stands'),
    bad_line("a key twice inside", _field(b'{"y": 1, "y": 2}'), 'the key "y" stands twice'),
    bad_line("a key twice, once as an escape", b'{"a": 1, "\\u0061": 2}', 'the key "a" stands'),
    bad_line("an empty key twice", b'{"": 1, "": 2}', 'the key "" stands twice'),
    bad_line(
        "a long key twice",
        b'{"' + b"k" * 90_000 + b'": 1, "' + b"k" * 90_000 + b'": 2}',
        f'the key "{"k" * 39}…" stands twice',
    ),
    bad_line(
        "a key of control characters twice",
        b'{"\\u001b[2J": 1, "\\u001b[2J": 2}',
        "stands twice in one object",
    ),
    bad_line(
        "keys that differ in case",
        b'{"question": "Q", "Answer": "A", "answer": "B"}',
        "answer",
    ),
    bad_line(
        "keys that differ in spaces",
        b'{"question": "Q", "answer ": "A", "answer": "B"}',
        "answer",
    ),
    bad_line("a number as key", b'{1: "Why?"}', "double quotes"),
    bad_line("half of a character in a key", b'{"\\ud83d": 1}', "a key holds half of a character"),
    good_line("an empty key", b'{"": 1, "question": "Q", "answer": "A"}'),
    good_line("keys in capitals with spaces", b'{" Question ": "Q", "ANSWER": "A"}'),
    bad_line("100,000 keys, one of them twice",
             b"{" + b", ".join(b'"k%d": 1' % i for i in range(100_000)) + b', "k0": 2}',
             'the key "k0" stands twice'),
    bad_row("10,000 unknown fields", {f"field{i}": i for i in range(10_000)}, "no known format"),
)  # fmt: skip

SURROGATES = (
    bad_line("half of a pair", _question(b"\\ud83d"), "question holds half of a character"),
    bad_line("the other half", _question(b"a \\udc00 b"), "\\udc00 without its other half"),
    bad_line("the halves in the wrong order", _question(b"\\ude00\\ud83d"), "half of a character"),
    bad_line("two first halves", _question(b"\\ud83d\\ud83d"), "half of a character"),
    bad_line("half of a pair in another field", _field(b'["\\ud83d"]'), "x[0] holds half of"),
    bad_line("a text cut between the halves", _question(b"x" * 60 + b"\\ud83d"), "half of"),
    good_line("a pair", _question(b"\\ud83d\\ude00")),
    good_line("an escaped backslash before a u", _question(b"\\\\ud83d")),
)  # fmt: skip

DEPTH = (
    bad_line("10,000 lists", _field(b"[" * DEEP + b"]" * DEEP), "more than 200 levels"),
    bad_line("10,000 objects", b'{"x":' * DEEP + b"1" + b"}" * DEEP, "more than 200 levels"),
    bad_line("10,000 lists that are not closed", b"[" * DEEP, "too deep"),
    bad_line("10,000 objects that are not closed", b'{"x":' * DEEP, "too deep"),
    bad_line("300 levels", _field(b"[" * 300 + b"]" * 300), "more than 200 levels"),
    bad_line("a million brackets", b"[" * 1_000_000, "too deep"),
    bad_line("a million closing brackets", b"]" * 1_000_000, "Expecting value at column 1"),
    good_line("150 levels", _field(b"[" * 150 + b"]" * 150)),
    good_line("10,000 brackets in a text", _question(b"[{" * DEEP)),
    good_line("10,000 lists side by side", _field(b"[" + b"[], " * DEEP + b"[]]")),
)

CUT = (
    bad_line("cut off in a text", b'{"question": "Why?", "answer": "Bec', "off at column 36"),
    bad_line("cut off after a colon", b'{"question": "Why?", "answer":', "breaks off"),
    bad_line("cut off before the brace", b'{"question": "Why?", "answer": "B"', "breaks off"),
    bad_line("cut off in a key", b'{"question": "Why?", "ans', "breaks off"),
    bad_line("cut off after an opening brace", b"{", "breaks off"),
    bad_line("cut off in an escape", b'{"question": "Why\\', "escape at column 18"),
    bad_line("cut off in a Unicode escape", b'{"question": "Why\\u00', "escape at column 19"),
    bad_line("cut off in a number", _field(b"-")[:-1], "at column 49"),
    bad_line("cut off in a literal", _field(b"tru")[:-1], "Expecting value"),
    bad_line("cut off in a list", b'{"messages": [{"role": "user"', "breaks off"),
    Case("the last line is cut off", jsonl(row(1), row(2)) + row(3)[:-9], rows=(1, 2),
         bad={3: "breaks off"}),
    Case("the last line is cut off to one byte", jsonl(row(1), row(2)) + b"{", rows=(1, 2),
         bad={3: "breaks off"}),
    Case("two halves glued", jsonl(row(1)) + row(2)[:20] + jsonl(row(3), row(4)), rows=(1, 3),
         bad={2: "not valid JSON"}),
)  # fmt: skip


def _megabytes_of_answer(path: Path) -> None:
    path.write_bytes(b'{"question": "Why?", "answer": "' + b"x" * 20_000_000 + b'"}\n' + row(2))


LONG = (
    Case("a row of 20 MB", _megabytes_of_answer, rows=(1, 2)),
    bad_line("a megabyte of quotes", b'"' * 1_000_000, "Extra data at column 3"),
    bad_line("a megabyte of backslashes", _question(b"\\" * 999_999), "not valid JSON"),
    bad_line("a megabyte of letters", b"x" * 1_000_000, "Expecting value at column 1"),
    good_line("a megabyte of spaces around a row", b" " * 500_000 + GOOD + b" " * 500_000),
    Case("a blank megabyte", jsonl(row(1), b" " * 1_000_000, row(3)), rows=(1, 3)),
)

CASES = (
    *CONTROL,
    *ENDINGS,
    *SYNTAX,
    *NUMBERS,
    *KEYS,
    *SURROGATES,
    *DEPTH,
    *CUT,
    *LONG,
)
