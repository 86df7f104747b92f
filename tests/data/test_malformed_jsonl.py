"""A corpus of broken files: each is a named refusal, and never stops the rows around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.data.readers import open_source
from llamafarm.data.scan import Pipeline, scan
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
    "a NUL byte": (b'{"question": "Why\x00?", "answer": "B"}', "control character"),
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
    "a tool": (b'{"messages": [{"role": "tool", "content": "4"}]}', "tool calls are not"),
    "a tool call": (
        b'{"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]}',
        "tool calls are not",
    ),
    "sharegpt without value": (b'{"conversations": [{"from": "human"}]}', "conversations[0].value"),
    "preferences": (b'{"prompt": "x", "chosen": "y", "rejected": "z"}', "preference rows"),
}


def _scan(path: Path, *, skip_bad_rows: bool = False) -> object:
    request = request_for(path, skip_bad_rows=skip_bad_rows)
    return scan(open_source(path), Pipeline.of(request), request, None)


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_broken_line_is_named_by_file_and_line(name: str, tmp_path: Path) -> None:
    line, said = BROKEN_LINES[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    with pytest.raises(DataError) as caught:
        _scan(path)
    text = caught.value.render()
    assert f"{path}:2" in text
    assert said in text
    assert ":1 " not in text and ":3 " not in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_broken_line_can_be_left_out_and_is_counted(name: str, tmp_path: Path) -> None:
    line, _ = BROKEN_LINES[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    found = _scan(path, skip_bad_rows=True)
    assert found.lines == [1, 3]
    assert [row.source.line for row in found.dropped] == [2]
    assert found.dropped[0].reason


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in list(BROKEN_LINES.values())[:12]))
    with pytest.raises(DataError, match="12 problems"):
        _scan(path)


def test_a_long_list_of_faults_is_cut_and_says_how_many_more(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "Why?"}\n' * 57)
    with pytest.raises(DataError) as caught:
        _scan(path)
    assert "57 problems" in caught.value.summary
    assert len(caught.value.problems) == 21
    assert "37 more" in caught.value.problems[-1].message


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
        (GOOD + b"\r" + GOOD, "Extra data"),
        (b"[\n" + GOOD + b"\n]", "named .json"),
        (b'{\n "question": "Why?",\n "answer": "B"\n}', "belong in a JSON list"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        _scan(path)
    assert said in caught.value.render()


def test_a_row_of_many_megabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "Why?", "answer": "' + b"x" * 20_000_000 + b'"}\n')
    assert _scan(path).lines == [1]
