"""A corpus of broken files: each is a named refusal, and never stops the rows around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.data.read_conversations import read_conversations
from llamafarm.data.readers import open_source
from llamafarm.data.records import BadRow
from llamafarm.data.scan import GoodRow, Pipeline
from llamafarm.errors import DataError

from .rows_on_disk import request_for

GOOD = b'{"question": "Why?", "answer": "Because."}'

# name: (the bytes of line 2, what the message must say)
BROKEN_LINES: dict[str, tuple[bytes, str]] = {
    "cut off in a text": (b'{"question": "Why?", "answer": "Bec', "breaks off"),
    "cut off after a key": (b'{"question": "Why?", "answer":', "breaks off"),
    "cut off before the brace": (b'{"question": "Why?", "answer": "B"', "breaks off"),
    "no opening brace": (b'"question": "Why?"}', "Extra data"),
    "single quotes": (b"{'question': 'Why?'}", "double quotes"),
    "trailing comma": (b'{"question": "Why?", "answer": "B",}', "double quotes"),
    "missing comma": (b'{"question": "Why?" "answer": "B"}', "delimiter"),
    "missing colon": (b'{"question" "Why?"}', "delimiter"),
    "bare words": (b"question: Why? answer: B", "Expecting value"),
    "a comment": (b"// rows about reasons", "Expecting value"),
    "a hash comment": (b"# rows about reasons", "Expecting value"),
    "Python's None": (b'{"question": None, "answer": "B"}', "Expecting value"),
    "Python's True": (b'{"question": "Why?", "answer": True}', "Expecting value"),
    "NaN": (b'{"question": "Why?", "answer": "B", "score": NaN}', "NaN is not JSON"),
    "Infinity": (b'{"question": "Why?", "answer": "B", "score": Infinity}', "Infinity"),
    "minus Infinity": (b'{"question": "Why?", "answer": "B", "score": -Infinity}', "-Infinity"),
    "two objects on a line": (GOOD + GOOD, "Extra data"),
    "a key twice": (b'{"answer": "A", "question": "Why?", "answer": "B"}', '"answer" stands twice'),
    "a key twice inside": (
        b'{"question": "Q", "answer": "A", "x": {"y": 1, "y": 2}}',
        '"y" stands',
    ),
    "a list": (b'["Why?", "Because."]', "found a list"),
    "a text": (b'"Why?"', "expected an object, found text"),
    "a number": (b"42", "found a number (42)"),
    "null": (b"null", "found null"),
    "true": (b"true", "found true"),
    "a raw tab in a text": (b'{"question": "Why\t?", "answer": "B"}', "control character"),
    "a NUL byte": (b'{"question": "Why\x00?", "answer": "B"}', "NUL byte"),
    "NUL bytes after the row": (GOOD + b"\0" * 50, "NUL byte"),
    "NUL bytes alone": (b"\0" * 5000, "NUL byte"),
    "1e400": (b'{"question": "Q", "answer": "A", "x": 1e400}', "1e400 is too large"),
    "a million digits": (b'{"x": ' + b"9" * 1_000_000 + b"}", "1,000,000 digits"),
    "a million decimals": (b'{"question": 0.' + b"9" * 1_000_000 + b', "answer": "B"}', "a number"),
    "10,000 levels": (b'{"x":' * 10_000 + b"1" + b"}" * 10_000, "too deep"),
    "300 levels": (b'{"x":' * 300 + b"1" + b"}" * 300, "too deep"),
    "half a surrogate pair in a key": (b'{"\\ud83d": 1, "answer": "B"}', "half of a character"),
    "half of one in another field": (
        b'{"question": "Q", "answer": "A", "x": ["\\ud83d"]}',
        "x[0] holds half of a character",
    ),
    "a very long key twice": (b'{"' + b"k" * 90_000 + b'":1,"' + b"k" * 90_000 + b'":2}', "twice"),
    "rows that end in CR": (GOOD + b"\r" + GOOD + b"\r" + GOOD, "tr '\\r' '\\n'"),
    "a raw escape": (b'{"question": "Why\x1b[0m?", "answer": "B"}', "control character"),
    "an unknown escape": (b'{"question": "C:\\data", "answer": "B"}', "escape"),
    "a short unicode escape": (b'{"question": "\\u12", "answer": "B"}', "escape"),
    "half a surrogate pair": (b'{"question": "\\ud83d", "answer": "B"}', "half of a character"),
    "the other half": (b'{"question": "Q", "answer": "a \\udc00 b"}', "half of a character"),
    "Latin-1": (b'{"question": "Was ist \xe4?", "answer": "B"}', "byte 0xE4 at column 23"),
    "Windows quotes": (b'{"question": "\x93Why\x94", "answer": "B"}', "byte 0x93"),
    "overlong UTF-8": (b'{"question": "\xc0\xaf", "answer": "B"}', "byte 0xC0"),
    "a surrogate in UTF-8": (b'{"question": "\xed\xa0\x80", "answer": "B"}', "byte 0xED"),
    "UTF-8 cut in a character": (b'{"question": "\xe2\x82"}', "byte 0xE2"),
    "a second byte order mark": (b"\xef\xbb\xbf" + GOOD, "BOM"),
    "nested too deeply": (b'{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep"),
    "a number without end": (b'{"question": ' + b"9" * 10_000 + b"}", "digit"),
    "no fields": (b"{}", "no known format"),
    "unknown fields": (b'{"frage": "Warum?", "antwort": "Darum."}', "frage, antwort"),
    "no answer": (b'{"question": "Why?"}', "answer"),
    "answer is null": (b'{"question": "Why?", "answer": null}', "found null"),
    "answer is empty": (b'{"question": "Why?", "answer": ""}', "is empty"),
    "answer is blank": (b'{"question": "Why?", "answer": " \\n\\t "}', "is empty"),
    "answer is a number": (b'{"question": "Why?", "answer": 42}', "expected text, found a number"),
    "answer is a list": (b'{"question": "Why?", "answer": ["B"]}', "expected text, found a list"),
    "answer is an object": (b'{"question": "Why?", "answer": {"t": "B"}}', "found an object"),
    "question is false": (b'{"question": false, "answer": "B"}', "expected text, found false"),
    "messages is a text": (b'{"messages": "hello"}', "expected a list of turns"),
    "messages is empty": (b'{"messages": []}', "empty list"),
    "a message is a text": (b'{"messages": ["hello"]}', "expected a turn"),
    "no role": (b'{"messages": [{"content": "hello"}]}', "messages[0].role"),
    "role is a number": (b'{"messages": [{"role": 1, "content": "hello"}]}', "a number (1)"),
    "role is unknown": (b'{"messages": [{"role": "boss", "content": "x"}]}', '"boss"'),
    "role is empty": (b'{"messages": [{"role": "", "content": "x"}]}', "messages[0].role"),
    "no content": (b'{"messages": [{"role": "user"}]}', "messages[0].content"),
    "only a user": (b'{"messages": [{"role": "user", "content": "x"}]}', "nothing to learn"),
    "only a system": (b'{"messages": [{"role": "system", "content": "x"}]}', "nothing to learn"),
    "assistant says nothing": (
        b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]}',
        "turn is empty",
    ),
    "a picture": (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        "image_url",
    ),
    "a tool": (b'{"messages": [{"role": "tool", "content": "4"}]}', "nothing to learn"),
    "a tool call": (
        b'{"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]}',
        "messages[0].tool_calls[0].function",
    ),
    "sharegpt without value": (b'{"conversations": [{"from": "human"}]}', "conversations[0].value"),
    "an answer that is not wanted": (
        b'{"prompt": "x", "completion": "y", "label": false}',
        "undesirable",
    ),
}


def _refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_conversations(request_for(path))
    return caught.value


def _between_good_rows(tmp_path: Path, line: bytes) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    return path


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_broken_line_is_named_by_file_and_line(name: str, tmp_path: Path) -> None:
    line, said = BROKEN_LINES[name]
    path = _between_good_rows(tmp_path, line)
    refusal = _refusal(path)
    text = refusal.render()
    assert f"{path}:2" in text
    assert said in text
    assert ":1 " not in text and ":3 " not in text
    assert refusal.exit_code == 2


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_broken_line_stops_no_row_around_it(name: str, tmp_path: Path) -> None:
    path = _between_good_rows(tmp_path, BROKEN_LINES[name][0])
    pipeline = Pipeline.of(request_for(path))
    rows = [pipeline.read(item) for item in open_source(path).items()]
    assert [isinstance(row, GoodRow) for row in rows] == [True, False, True]
    bad = rows[1]
    assert isinstance(bad, BadRow)
    assert bad.source.line == 2
    assert 0 < len(bad.reason) < 500


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in list(BROKEN_LINES.values())[:12]))
    assert "12 problems" in _refusal(path).summary


def test_a_long_list_of_faults_is_cut_and_says_how_many_more(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "Why?"}\n' * 57)
    refusal = _refusal(path)
    assert "57 problems" in refusal.summary
    assert len(refusal.problems) == 21
    assert "37 more" in refusal.problems[-1].message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n  \r\n", "is empty"),
        (b"\xef\xbb\xbf", "no rows"),
        (b"\xef\xbb\xbf\n\n", "no rows"),
        (GOOD.decode().encode("utf-16"), "iconv -f UTF-16"),
        (GOOD.decode().encode("utf-16-le"), "iconv -f UTF-16LE"),
        (GOOD.decode().encode("utf-16-be"), "iconv -f UTF-16BE"),
        (b"\xff\xfe\0\0" + GOOD.decode().encode("utf-32-le"), "iconv -f UTF-32"),
        (GOOD + b"\r" + GOOD, "tr '\\r' '\\n'"),
        (b"[\n" + GOOD + b"\n]", "named .json"),
        (b'{\n "question": "Why?",\n "answer": "B"\n}', "belong in a JSON list"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert said in _refusal(path).render()


def test_a_row_of_many_megabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "Why?", "answer": "' + b"x" * 20_000_000 + b'"}\n')
    (row,) = read_conversations(request_for(path))
    assert len(row.messages[1].content) == 20_000_000
