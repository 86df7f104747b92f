from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data import encoding, json_reader
from llamafarm.data.json_reader import MAX_DEPTH, describe, read_jsonl, strict_json
from llamafarm.data.read_conversations import read_conversations
from llamafarm.data.readers import open_source
from llamafarm.errors import DataError

from .rows_on_disk import good_and_bad, request_for

ROW = b'{"a": 1}'


def _read(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    return good_and_bad(open_source(path).items())


def test_records_keep_their_line_and_their_exact_bytes(tmp_path: Path) -> None:
    good, bad = _read(tmp_path, "r.jsonl", b'{"a":  1}\r\n\n \t\n{"b": "\xc3\xa4"}  \n{"c": 3}')
    assert not bad
    assert [record.source.line for record in good] == [1, 4, 5]
    assert [record.raw for record in good] == [
        b'{"a":  1}\r\n',
        b'{"b": "\xc3\xa4"}  \n',
        b'{"c": 3}',
    ]


def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path: Path) -> None:
    good, _ = _read(tmp_path, "r.jsonl", b"\xef\xbb\xbf" + ROW + b"\n")
    assert good[0].raw == ROW + b"\n"
    assert dict(good[0].fields) == {"a": 1}


def test_the_offset_of_a_wrong_byte_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    _, bad = _read(tmp_path, "r.jsonl", b"\xef\xbb\xbf" + ROW + b'\n{"b": "\xe4"}\n')
    assert "column 8 (byte 20 of the file)" in bad[0].reason


@given(
    st.lists(
        st.sampled_from(
            [b'{"a": 1}', b'{"b": "\xc3\xa9\xc3\xa9"}', b" ", b"", b"{", b"\xff", b"[1]"]
        ),
        max_size=12,
    ),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
)
def test_every_line_that_is_not_blank_is_a_record_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ending: bytes, final: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "r.jsonl"
    content = ending.join(lines) + (ending if final else b"")
    path.write_bytes(content)
    items = list(read_jsonl(path, "r.jsonl"))
    expected = [number for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    assert [item.source.line for item in items] == expected
    good, _ = good_and_bad(items)
    assert all(record.raw in content for record in good)


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES, st.booleans(), st.sampled_from([None, 2]), st.sampled_from(["", " ", "\t\r\n "]))
def test_strict_json_reads_what_json_reads(
    value: object, ascii_only: bool, indent: int | None, space: str
) -> None:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (UnicodeEncodeError, ValueError):
        return
    text = space + json.dumps(value, ensure_ascii=ascii_only, indent=indent) + space
    assert strict_json(text) == json.loads(text)


@given(st.text('{}[],:"\\\\ud8a9e-+.0 \n', max_size=30))
def test_strict_json_refuses_whatever_json_refuses(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            strict_json(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "b": 2, "a": 3}', 'the key "a" stands twice'),
        ('{"x": [{"a": 1, "a": 1}]}', 'the key "a" stands twice'),
        ('{"\\u0061": 1, "a": 2}', 'the key "a" stands twice'),
        ('{"a": 1e400}', "the number 1e400 is too large"),
        ('{"a": -1e999999999}', "the number -1e999999999 is too large"),
        (f'{{"a": {"9" * 400}.0}}', "is too large"),
        (f'{{"a": {"9" * 1_000_000}}}', "a number of 1,000,000 digits; at most 4,300"),
        (f'{{"a": -{"9" * 5000}}}', "digits"),
        ('{"a": {"b": ["x", "\\ud83d"]}}', "a.b[1] holds half of a character (\\ud83d"),
        ('{"a": "\\ude00\\ud83d"}', "a holds half of a character (\\ude00"),
        ('{"a": "\\\\ud83d\\ude00"}', "a holds half of a character (\\ude00"),
        ('{"\\uD800": 1}', "a key holds half of a character (\\ud800"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "more than 200 levels"),
        ('{"a":' * 300 + "1" + "}" * 300, "more than 200 levels"),
    ],
)
def test_what_other_readers_would_read_differently_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        strict_json(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "\\ud83d\\ude00 \\uD83D\\uDE00"}',
        '{"a": "\\\\ud83d"}',
        '{"a": 1e308, "b": 1e-400}',
        f'{{"a": {"9" * 4300}}}',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        json.dumps({"a": ["[" * 300, {"b": "{" * 300}]}),
        json.dumps([[i] for i in range(1000)]),
    ],
)
def test_what_only_looks_wrong_is_read(text: str) -> None:
    assert strict_json(text) == json.loads(text)


def test_a_huge_object_with_a_key_twice_is_refused_in_linear_time() -> None:
    pairs = [f'"k{i}": {i}' for i in range(200_000)]
    with pytest.raises(ValueError, match='"k199999" stands twice'):
        strict_json("{" + ", ".join([*pairs, pairs[-1]]) + "}")


def test_a_line_that_is_too_long_is_a_bad_row_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_LINE_BYTES", 100)
    good, bad = _read(tmp_path, "r.jsonl", b"x" * 300 + b"\n" + ROW + b'\n{"b": "\xe4"}\n')
    assert [r.source.line for r in good] == [2]
    assert [b.source.line for b in bad] == [1, 3]
    assert "a line of 301 bytes" in bad[0].reason
    assert "(byte 318 of the file)" in bad[1].reason


@pytest.mark.parametrize(
    "content",
    [
        b'[{"a": 1}, {"a": 2}]',
        b'\xef\xbb\xbf[\n{"a": 1},\r\n{"a": 2}]\n',
        b'{"version": 1, "data": [{"a": 1}, {"a": 2}]}',
        b'{"rows": [{"a": 1}, {"a": 2}], "names": ["x", "y"]}',
    ],
)
def test_json_lists_are_read_wherever_they_stand(content: bytes, tmp_path: Path) -> None:
    good, bad = _read(tmp_path, "r.json", content)
    assert [(r.source.line, dict(r.fields)) for r in good] == [(1, {"a": 1}), (2, {"a": 2})]
    assert not bad


def test_a_json_file_with_one_object_a_line_is_read_as_jsonl_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(ROW + b"\n\n" + ROW + b"\n")
    source = open_source(path)
    assert source.kind == "jsonl"
    assert "read as JSONL" in source.notices[0]
    assert [item.source.line for item in source.items()] == [1, 3]


def test_a_first_line_that_is_broken_does_not_make_a_jsonl_file_a_json_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b'{"a": NaN}\n' + ROW + b"\n")
    good, bad = good_and_bad(open_source(path).items())
    assert [r.source.line for r in good] == [2]
    assert [b.source.line for b in bad] == [1]


@pytest.mark.parametrize("content", [b'[\n{"a": 1},\n{"a": 2}\n]', b'{"x":\n[{}\n,{}\n]}', b"{}"])
def test_a_json_value_over_several_lines_is_read_as_json(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    source = open_source(path)
    assert source.kind == "json"
    assert good_and_bad(source.items())[1] == []


@pytest.mark.parametrize(
    "key",
    [
        "messages",
        "conversations",
        "segments",
        "tools",
        "functions",
        "prompt",
        "completion",
        "chosen",
        "rejected",
    ],
)
def test_one_row_in_a_json_file_is_a_row_and_not_a_list_of_rows(key: str, tmp_path: Path) -> None:
    row = {key: [{"role": "user", "content": "x"}], "text": "y"}
    good, _ = _read(tmp_path, "r.json", json.dumps(row, indent=1).encode())
    assert [dict(record.fields) for record in good] == [row]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("r s.json", "jq -c '.[]' '{0}/r s.json' > '{0}/r s.jsonl'"),
        ("r.json.gz", "gunzip -c {0}/r.json.gz | jq -c '.[]' > {0}/r.jsonl"),
    ],
)
def test_a_json_file_too_large_for_the_memory_is_refused(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b'[\n{"a": 1},\n{"a": 2}\n]'
    packed = gzip.compress(content) if name.endswith(".gz") else content
    monkeypatch.setattr(json_reader, "MAX_JSON_BYTES", len(content))
    assert len(_read(tmp_path, name, packed)[0]) == 2
    monkeypatch.setattr(json_reader, "MAX_JSON_BYTES", len(content) - 1)
    with pytest.raises(DataError, match="GiB of JSON, which is read as a whole") as caught:
        _read(tmp_path, name, packed)
    assert command.format(tmp_path) in caught.value.hint


def test_a_list_item_that_is_no_object_is_named_by_its_number(tmp_path: Path) -> None:
    good, bad = _read(tmp_path, "r.json", b'[{"a": 1}, 5, {"a": 2}]')
    assert len(good) == 2
    assert "record 2: expected an object, found a number (5)" in bad[0].reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"a": 1},]', "r.json:1"),
        (b'[\n{"a": 1},\n{"a": }]', "r.json:3"),
        (b'[{"a": 1, "a": 2}]', '"a" stands twice'),
        (b'[{"a": NaN}]', "NaN"),
        (b"[" * 100_000, "too deep"),
        (b"5", "a number (5)"),
        (b'{"x": [{}], "y": [{}]}', "2 lists (x, y)"),
        (b'["\xe4"]', "byte 0xE4"),
    ],
)
def test_a_broken_json_file_is_refused_whole(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, "r.json", content)
    assert said in caught.value.render()


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b'["\xe4"]', 1, "byte 0xE4 at column 3 (byte 3 of the file)"),
        (b'\xef\xbb\xbf["\xe4"]', 1, "byte 0xE4 at column 3 (byte 6 of the file)"),
        (b'[\n{"a": 1},\n{"\xe4": 2},\n1]', 3, "byte 0xE4 at column 3 (byte 15 of the file)"),
        (b'[\n"\xe2\x82', 2, "byte 0xE2 at column 2 (byte 4 of the file)"),
    ],
)
def test_a_wrong_byte_of_a_json_file_is_named_by_its_own_line(
    content: bytes, line: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, "r.json", content)
    (problem,) = caught.value.problems
    assert problem.where == f"{tmp_path / 'r.json'}:{line}"
    assert said in problem.message


def test_a_long_list_of_faults_is_cut_and_says_how_many_more(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "Why?"}\n' * 57)
    with pytest.raises(DataError, match="57 problems") as caught:
        read_conversations(request_for(path))
    assert len(caught.value.problems) == 21
    assert "37 more" in caught.value.problems[-1].message


def test_a_row_of_many_megabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "Why?", "answer": "' + b"x" * 20_000_000 + b'"}\n')
    (row,) = read_conversations(request_for(path))
    assert len(row.messages[1].content) == 20_000_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (5, "a number (5)"),
        ("abc", 'text ("abc")'),
        ("x" * 30, f'text ("{"x" * 20}…")'),
        ([], "a list"),
        ({}, "an object"),
        (b"", "a bytes"),
    ],
)
def test_values_are_described_in_words(value: object, text: str) -> None:
    assert describe(value) == text
