from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data.json_reader import describe, read_jsonl
from llamafarm.data.readers import open_source
from llamafarm.errors import DataError

from .rows_on_disk import good_and_bad

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


def test_one_conversation_in_a_json_file_is_a_row_and_not_a_list_of_rows(tmp_path: Path) -> None:
    good, _ = _read(tmp_path, "r.json", b'{"messages": [{"role": "user", "content": "x"}]}')
    assert len(good) == 1
    assert "messages" in good[0].fields


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
