from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.data.read_conversations import read_conversations
from llamafarm.data.rows import Message
from llamafarm.errors import DataError

from .rows_on_disk import qa, request_for, write_jsonl


def test_rows_come_in_the_files_order_with_their_places(tmp_path: Path) -> None:
    rows = read_conversations(request_for(write_jsonl(tmp_path / "d.jsonl", map(qa, range(7)))))
    assert [row.source.line for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[4].messages == (
        Message("user", "What is 4?"),
        Message("assistant", "It is the number 4."),
    )


def test_a_system_prompt_stands_before_rows_that_have_none(tmp_path: Path) -> None:
    own = {**qa(1), "system": "Be brief."}
    file = write_jsonl(tmp_path / "d.jsonl", [qa(0), own, {"text": "Plain."}])
    asked, with_own, plain = read_conversations(request_for(file, system_prompt="Be kind."))
    assert asked.messages[0] == Message("system", "Be kind.")
    assert [m.content for m in with_own.messages if m.role == "system"] == ["Be brief."]
    assert (plain.messages, plain.text) == ((), "Plain.")


def test_what_the_request_leaves_out_is_left_out(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", [qa(0), qa(0), {"question": "?"}, qa(1), qa(2)])
    request = request_for(file, skip_bad_rows=True, remove_duplicates=True, max_samples=2)
    assert [row.source.line for row in read_conversations(request)] == [1, 4]


def test_a_bad_row_is_an_error_with_its_place(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", [qa(0), {"question": "?"}])
    with pytest.raises(DataError) as fault:
        read_conversations(request_for(file))
    assert fault.value.problems[0].where.endswith("d.jsonl:2")


def test_where_no_row_is_left_the_count_and_the_first_reasons_are_told(tmp_path: Path) -> None:
    silent = {"messages": [{"role": "user", "content": "Hi"}]}
    file = write_jsonl(tmp_path / "d.jsonl", [{"text": "SPAM"}, {"question": "?"}, silent])
    request = request_for(file, skip_bad_rows=True, remove_patterns=("SPAM",))
    with pytest.raises(DataError) as fault:
        read_conversations(request)
    assert fault.value.summary.endswith("d.jsonl: no row is left, all 3 were dropped")
    found = [(p.where.rsplit(":")[-1], p.message) for p in fault.value.problems]
    assert found == [
        ("1", "text is empty after remove_patterns"),
        ("2", "answer: expected text, found no such field"),
        ("3", "messages: no turn of the assistant: nothing to learn"),
    ]
