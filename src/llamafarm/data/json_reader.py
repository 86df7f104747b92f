"""JSONL and JSON files as records. Strict JSON: no NaN, no key twice, an object a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from llamafarm.data.encoding import UTF8_BOM, decode_line
from llamafarm.data.records import ROW_HINT, BadRow, Item, Record
from llamafarm.data.rows import RowRef
from llamafarm.errors import DataError, Problem

# A row may hold a list of objects of its own under these keys; under any other single key it is the
# list of rows.
_ROW_LISTS = frozenset({"messages", "conversations", "conversation"})


class _NotStrictJsonError(ValueError):
    """JSON that Python would accept and other readers would not, or read differently."""


def read_jsonl(path: Path, name: str) -> Iterator[Item]:
    """One record a line. Blank lines are passed over; a byte order mark belongs to the file, not to
    its first row.
    """
    with path.open("rb") as file:
        yield from _read_lines(file, name)


def _read_lines(file: BinaryIO, name: str) -> Iterator[Item]:
    offset = 0
    for number, line in enumerate(file, start=1):
        raw = line.removeprefix(UTF8_BOM) if number == 1 else line
        skipped = len(line) - len(raw)
        if raw.strip():
            yield _read_row(raw, RowRef(name, number), offset + skipped)
        offset += len(line)


def _read_row(raw: bytes, source: RowRef, offset: int) -> Item:
    text = decode_line(raw, source, offset)
    if isinstance(text, BadRow):
        return text
    try:
        value = strict_json(text)
    except (ValueError, RecursionError) as fault:
        return _bad(source, _describe(fault, text), _hint(text, fault))
    if not isinstance(value, dict):
        return _bad(source, f"expected an object, found {describe(value)}", _hint(text, None))
    return Record(source, value, raw)


def _bad(source: RowRef, message: str, hint: str) -> BadRow:
    return BadRow(source, (Problem(message, where=str(source), hint=hint),))


def strict_json(text: str) -> object:
    """json.loads that refuses NaN, Infinity and keys that stand twice.

    Raises ValueError, RecursionError.
    """
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _NotStrictJsonError(f'the key "{twice}" stands twice in one object')
    return fields


def _refuse_constant(name: str) -> object:
    raise _NotStrictJsonError(f"{name} is not JSON; expected a number, text or null")


def describe(value: object) -> str:
    """A value as messages name it: `a number (5)`, `a list`, `null`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"a number ({str(value)[:20]})"
        case str():
            return f'text ("{value[:20]}{"…" if len(value) > 20 else ""}")'
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def _describe(fault: Exception, text: str) -> str:
    if isinstance(fault, json.JSONDecodeError):
        if _ends_early(fault, text):
            return f"not valid JSON: the row breaks off at column {len(text.rstrip()) + 1}"
        return f"not valid JSON: {fault.msg} at column {fault.pos + 1}"
    if isinstance(fault, RecursionError):
        return "nested too deeply to be read"
    return str(fault)


def _ends_early(fault: json.JSONDecodeError, text: str) -> bool:
    return fault.msg.startswith("Unterminated string") or fault.pos >= len(text.rstrip())


def _hint(text: str, fault: Exception | None) -> str:
    """What the row probably meant to be."""
    start = text.lstrip()[:2]
    if isinstance(fault, _NotStrictJsonError):
        return ""
    if isinstance(fault, json.JSONDecodeError) and fault.msg == "Extra data" and start[:1] == "{":
        return "one row a line: start a new line after each closing brace"
    if start.startswith("["):
        return "a file that is one JSON list is named .json, not .jsonl"
    if start.startswith("{'"):
        return "JSON takes double quotes around keys and texts"
    if text.strip() == "{":
        return (
            "a row is one line in JSONL; rows spread over lines belong in a JSON list, named .json"
        )
    return ROW_HINT


def is_jsonl_inside(path: Path) -> bool:
    """Whether a .json file holds one object a line: its first line is a whole object, and a second
    one follows.
    """
    with path.open("rb") as file:
        lines = (line for line in file if line.strip(UTF8_BOM + b" \t\r\n"))
        first, second = next(lines, b""), next(lines, b"")
    try:
        value = json.loads(first.removeprefix(UTF8_BOM))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and second.lstrip().startswith(b"{")


def read_json(path: Path, name: str) -> Iterator[Item]:
    """The records of a JSON list of objects, also when it is the one list inside an object.

    Line = record number.
    """
    for number, value in enumerate(_row_list(_load(path, name), name), start=1):
        source = RowRef(name, number)
        if isinstance(value, dict):
            yield Record(source, value)
        else:
            yield _bad(source, f"record {number}: expected an object, found {describe(value)}", "")


def _load(path: Path, name: str) -> object:
    text = decode_line(path.read_bytes().removeprefix(UTF8_BOM), RowRef(name, 1), 0)
    if isinstance(text, BadRow):
        raise DataError(f"{name} is not UTF-8", text.problems)
    try:
        return strict_json(text)
    except json.JSONDecodeError as fault:
        where = f"{name}:{fault.lineno}"
        problem = Problem(f"not valid JSON: {fault.msg} at column {fault.colno}", where=where)
    except (ValueError, RecursionError) as fault:
        problem = Problem(_describe(fault, text), where=name)
    raise DataError(
        f"{name} is not a JSON file",
        [problem],
        hint="a file with one object a line is named .jsonl",
    )


def _row_list(value: object, name: str) -> Sequence[object]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = {
            key: inner
            for key, inner in value.items()
            if isinstance(inner, list) and any(isinstance(row, dict) for row in inner)
        }
        if not lists or _ROW_LISTS & lists.keys():
            return [value]
        if len(lists) == 1:
            return next(iter(lists.values()))
        found = f"an object with {len(lists)} lists ({', '.join(sorted(lists))})"
    else:
        found = describe(value)
    raise DataError(
        f"{name} holds {found}",
        hint='expected [{"question": …, "answer": …}, …], or an object with one such list',
    )
