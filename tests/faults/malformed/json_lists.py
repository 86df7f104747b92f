"""JSON files that hold no list of rows. The line of a record is its number."""

from __future__ import annotations

from .case import Case, jsonl, refused, row

ROWS = b",\n".join([row(1), row(2), row(3)])


def _refused(name: str, content: bytes, *said: str) -> Case:
    return refused(name, content, *said, file="rows.json")


def _read(name: str, content: bytes, rows: tuple[int, ...] = (), **expected: object) -> Case:
    return Case(name, content, "rows.json", rows=rows, **expected)  # type: ignore[arg-type]


SYNTAX = (
    _refused("list: an empty file", b"", "is empty"),
    _refused("list: blank", b" \n\t\n", "is empty"),
    _refused("list: a BOM alone", b"\xef\xbb\xbf", "rows.json"),
    _refused("list: cut off in a row", b"[\n" + ROWS[:-9], "rows.json:4", "not valid JSON"),
    _refused("list: cut off after a comma", b"[\n" + row(1) + b",\n", "rows.json:3"),
    _refused("list: cut off before the bracket", b"[\n" + ROWS, "rows.json:4", "delimiter"),
    _refused("list: a trailing comma", b"[\n" + row(1) + b",\n]", "rows.json:", "not valid JSON"),
    _refused("list: a missing comma", b"[\n" + row(1) + b"\n" + row(2) + b"\n]", "rows.json:3"),
    _refused("list: a comment", b"[\n// first\n" + row(1) + b"]", "rows.json:2"),
    _refused("list: single quotes", b"[{'question': 'Why?'}]", "rows.json:1", "double quotes"),
    _refused("list: something after it", b"[" + ROWS + b"]\nthe end\n", "rows.json:4"),
    _refused("list: two lists", b"[" + row(1) + b"]\n[" + row(2) + b"]\n", "rows.json:2"),
    _refused("list: NaN", b'[{"question": NaN}]', "NaN is not JSON"),
    _refused("list: a key twice", b'[{"a": 1, "a": 2}]', 'the key "a" stands twice'),
    _refused("list: 10,000 deep", b"[" * 10_000 + b"]" * 10_000, "too deep"),
    _refused("list: a NUL byte", b"[" + ROWS + b"]\0", "rows.json:3", "Extra data"),
    _refused("list: half of a character", b'[{"question": "\\ud83d"}]', "half of a character"),
    _refused("list: a tab in a text", b'[\n{"question": "a\tb"}]', "rows.json:2", "control"),
    _refused("list: a million digits", b'[{"a": ' + b"9" * 1_000_000 + b"}]", "1,000,000 digits"),
    _refused("list: an HTML page", b"<!DOCTYPE html>\n<p>404</p>", "rows.json:1", "named .jsonl"),
)

SHAPE = (
    _refused("list: a number", b"5", "a number (5)"),
    _refused("list: a text", b'"rows"', 'text ("rows")'),
    _refused("list: null", b"null", "null"),
    _refused("list: true", b"true", "true"),
    _refused("list: empty", b"[]", "no rows"),
    _read("list: of nothing but nulls", b"[null]", bad={1: "expected an object, found null"}),
    _refused("list: two lists in an object", b'{"train": [{"a": 1}], "test": [{"a": 2}]}',
             "2 lists (test, train)"),
    _read("list: an empty object", b"{}", bad={1: "no known format has these fields: no fields"}),
    _read("list: an empty list in an object", b'{"data": []}', bad={1: "these fields: data"}),
    _read("list: of lists", b'[["Why?", "B"]]', bad={1: "record 1: expected an object"}),
    _read("list: of texts", b'["Why?", "B"]', bad={1: "record 1: expected", 2: "record 2"}),
    _read("list: with a null", b"[" + row(1) + b", null, " + row(3) + b"]", (1, 3),
          bad={2: "record 2: expected an object, found null"}),
    _read("list: with a number", b"[5, " + row(2) + b"]", (2,), bad={1: "found a number (5)"}),
    _read("list: in lists", b"[[" + row(1) + b"]]", bad={1: "found a list"}),
    _read("list: columns instead of rows", b'{"question": ["Why?"], "answer": ["B"]}',
          bad={1: "expected text, found a list"}),
    _read("list: rows under numbers", b'{"0": ' + row(1) + b', "1": ' + row(2) + b"}",
          bad={1: "no known format has these fields: 0, 1"}),
    _read("list: SQuAD", b'{"data": [{"title": "T", "paragraphs": []}]}',
          bad={1: "no known format has these fields: title, paragraphs"}),
    _read("list: one row", row(1), (1,)),
    _read("list: in an object", b'{"version": "1", "rows": [' + ROWS + b"]}", (1, 2, 3)),
    _read("list: JSONL inside", jsonl(row(1), row(2)), (1, 2), notices=("read as JSONL",)),
    _read("list: JSONL inside, a line of it broken", jsonl(row(1), row(2), b"{", row(4)), (1, 2, 4),
          bad={3: "breaks off"}, notices=("read as JSONL",)),
    _read("list: JSONL inside, the first line broken", jsonl(b'{"a": NaN}', row(2)), (2,),
          bad={1: "NaN is not JSON"}, notices=("read as JSONL",)),
    _refused("list: a conflict that was not resolved",
             b"[\n<<<<<<< HEAD\n" + row(1) + b"\n=======\n" + row(2) + b"\n>>>>>>> main\n]",
             "rows.json:2"),
)  # fmt: skip

CASES = (*SYNTAX, *SHAPE)
