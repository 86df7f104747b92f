"""JSONL and JSON files as records. Strict JSON: no NaN, no key twice, an object a row."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from llamafarm.data.compressed import open_bytes, unpack_command, without_compression
from llamafarm.data.encoding import NUL_HINT, UTF8_BOM, LongLine, decode_line, read_lines
from llamafarm.data.records import ROW_HINT, BadRow, Item, Record
from llamafarm.data.rows import RowRef
from llamafarm.errors import DataError, Problem

# A row may hold a list of objects of its own under these keys; under any other single key it is the
# list of rows.
_ROW_LISTS = frozenset(
    {
        "messages",
        "conversations",
        "conversation",
        "segments",
        "tools",
        "functions",
        "prompt",
        "completion",
        "chosen",
        "rejected",
    }
)

# A JSON value is in memory as a whole, and takes several times its size there.
MAX_JSON_BYTES = 2**30
MAX_DEPTH = 200
MAX_DIGITS = 4300
_SPACE = " \t\n\r"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN_CHARACTERS = 40


class _NotStrictJsonError(ValueError):
    """JSON that Python would accept and other readers would not, or read differently."""


def read_jsonl(path: Path, name: str) -> Iterator[Item]:
    """One record a line. Blank lines are passed over; a byte order mark belongs to the file, not to
    its first row.
    """
    with open_bytes(path, name) as file:
        yield from _read_lines(file, name)


def _read_lines(file: BinaryIO, name: str) -> Iterator[Item]:
    offset = 0
    for number, line in enumerate(read_lines(file), start=1):
        if isinstance(line, LongLine):
            yield line.refused(RowRef(name, number))
            offset += line.length
            continue
        raw = line.removeprefix(UTF8_BOM) if number == 1 else line
        if not raw.isspace() and raw:
            yield _read_row(raw, RowRef(name, number), offset + len(line) - len(raw))
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
    """json.loads that refuses what other readers would not read, or read differently: NaN,
    Infinity, keys that stand twice, numbers beyond what a float holds or of more than MAX_DIGITS
    digits, half of a character, and more than MAX_DEPTH levels.

    Raises ValueError, RecursionError.
    """
    start = len(text) - len(text.lstrip(_SPACE))
    value, end = _DECODER.raw_decode(text, start)
    if end != len(text) and (rest := text[end:].lstrip(_SPACE)):
        raise json.JSONDecodeError("Extra data", text, len(text) - len(rest))
    if _may_be_deep(text, start):
        _refuse_depth(value)
    if "\\" in text and _SURROGATE.search(text):
        _refuse_half_characters(value)
    return value


def _may_be_deep(text: str, start: int) -> bool:
    """Looks at the text alone, the cheapest question first: most rows are flat."""
    if len(text) < 2 * MAX_DEPTH or ("[" not in text and text.find("{", start + 1) < 0):
        return False
    return text.count("[") + text.count("{") > MAX_DEPTH


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _NotStrictJsonError(f'the key "{_first_twice(pairs)}" stands twice in one object')
    return fields


def _first_twice(pairs: Iterable[tuple[str, object]]) -> str:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return _shortened(key)
        seen.add(key)
    return ""


def _refuse_constant(name: str) -> object:
    raise _NotStrictJsonError(f"{name} is not JSON; expected a number, text or null")


def _integer(digits: str) -> int:
    """int() takes quadratic time, and the limit that Python sets against it can be lifted."""
    if len(digits) > MAX_DIGITS:
        raise _NotStrictJsonError(f"a number of {len(digits):,} digits; at most {MAX_DIGITS:,}")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NotStrictJsonError(f"the number {_shortened(digits)} is too large")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_refuse_constant,
    parse_int=_integer,
    parse_float=_finite,
)


def _refuse_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise _NotStrictJsonError(f"nested too deeply to be read: more than {MAX_DEPTH} levels")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse_half_characters(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as fault:
        half = fault.object[fault.start]
        raise _NotStrictJsonError(
            f"{_path_of(half, value)} holds half of a character "
            f"(\\u{ord(half):04x} without its other half)"
        ) from fault


_Path = tuple["_Path", str] | None


def _path_of(character: str, value: object) -> str:
    """Where a character stands: `messages[2].content`."""
    waiting: list[tuple[_Path, object]] = [(None, value)]
    while waiting:
        path, found = waiting.pop()
        if isinstance(found, str) and character in found:
            return _written(path) or "the text"
        if isinstance(found, list):
            waiting += [((path, f"[{i}]"), inner) for i, inner in enumerate(found)]
        elif isinstance(found, dict):
            if any(character in key for key in found):
                return "a key"
            waiting += [((path, f".{key}"), inner) for key, inner in found.items()]
    return "the row"


def _written(path: _Path) -> str:
    """Steps are joined only for the one path that is shown: a long key may have many values."""
    steps = []
    while path is not None:
        path, step = path
        steps.append(_shortened(step))
    return "".join(reversed(steps)).lstrip(".")


def _shortened(text: str) -> str:
    """The beginning of a text, such that it can be printed."""
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


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
        column = fault.pos + 1
        found = text[fault.pos : fault.pos + 1]
        if _ends_early(fault, text):
            return f"not valid JSON: the row breaks off at column {len(text.rstrip()) + 1}"
        if found == "\0":
            return f"not valid JSON: a NUL byte, a control character, at column {column}"
        if found == "\ufeff":
            return f"not valid JSON: a byte order mark (BOM) inside the file, at column {column}"
        return f"not valid JSON: {fault.msg} at column {column}"
    if isinstance(fault, RecursionError):
        return f"nested too deeply to be read: more than {MAX_DEPTH} levels"
    return str(fault)


def _ends_early(fault: json.JSONDecodeError, text: str) -> bool:
    return fault.msg.startswith("Unterminated string") or fault.pos >= len(text.rstrip())


def _hint(text: str, fault: Exception | None) -> str:
    """What the row probably meant to be."""
    if isinstance(fault, _NotStrictJsonError):
        return ""
    start = text.lstrip()[:2]
    if isinstance(fault, json.JSONDecodeError):
        if text[fault.pos : fault.pos + 1] == "\0":
            return NUL_HINT
        if fault.msg == "Extra data" and "\r" in text[: fault.pos]:
            return "lines end with LF or CRLF: convert with `tr '\\r' '\\n'`"
        if fault.msg == "Extra data" and start[:1] == "{":
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


def is_jsonl_inside(path: Path, name: str) -> bool:
    """Whether a .json file holds one object a line.

    A line that ends an object and a line that begins one stand next to each other in no JSON value.
    """
    with open_bytes(path, name) as file:
        lines = (line for line in read_lines(file) if not _is_blank(line))
        first, second = next(lines, b""), next(lines, b"")
    if isinstance(first, LongLine) or isinstance(second, LongLine):
        return False
    whole = first.removeprefix(UTF8_BOM).strip()
    return whole.startswith(b"{") and whole.endswith(b"}") and second.lstrip().startswith(b"{")


def _is_blank(line: bytes | LongLine) -> bool:
    return isinstance(line, bytes) and not line.strip(UTF8_BOM + b" \t\r\n")


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
    with open_bytes(path, name) as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise _too_large(name)
    text = _decode(data, name)
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


def _too_large(name: str) -> DataError:
    inside = without_compression(Path(name))
    unpack = unpack_command(name)
    rows = shlex.quote(str(inside.with_suffix(".jsonl")))
    command = f"{unpack} | jq -c '.[]'" if unpack else f"jq -c '.[]' {shlex.quote(name)}"
    return DataError(
        f"{name} holds more than {MAX_JSON_BYTES // 2**30} GiB of JSON, which is read as a whole",
        hint=f"JSONL is read row by row: write one row a line, e.g. `{command} > {rows}`",
    )


def _decode(data: bytes, name: str) -> str:
    body = data.removeprefix(UTF8_BOM)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as fault:
        begin = body.rfind(b"\n", 0, fault.start) + 1
        source = RowRef(name, body.count(b"\n", 0, begin) + 1)
        line = body[begin : fault.end]
        found = decode_line(line, source, len(data) - len(body) + begin)
    problems = found.problems if isinstance(found, BadRow) else ()
    raise DataError(f"{name} is not UTF-8", problems)


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
