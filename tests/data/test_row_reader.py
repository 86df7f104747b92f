from __future__ import annotations

import pytest

from llamafarm.data.formats import RowSpec, to_conversation
from llamafarm.data.records import BadRow, Record
from llamafarm.data.rows import RowRef

TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
OTHERS = [{"from": "human", "value": "no"}, {"from": "gpt", "value": "no"}]
BAD_ANSWER = {"prompt": "Q", "rejected": "no"}


def _said(fields: dict[str, object], **spec: object) -> list[tuple[str, str]]:
    parsed = to_conversation(Record(RowRef("r.jsonl", 1), fields), RowSpec(**spec))  # type: ignore[arg-type]
    assert not isinstance(parsed, BadRow), parsed.reason
    return [(message.role, message.content) for message in parsed[0].messages]


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ({"question": "Q", "answer": "no", "reply": "A"}, {"completion": "reply"}),
        ({"question": "no", "answer": "A", "q2": "Q"}, {"query": "q2"}),
        ({"messages": OTHERS, "dialog": TURNS}, {"conversations": "dialog"}),
        ({"chosen": "no", "best": "A", **BAD_ANSWER}, {"chosen_response": "best"}),
        (
            {"instruction": "no", "asked": "Q", "chosen": "A", "rejected": "no"},
            {"prompt": "asked"},
        ),
    ],
)
def test_a_mapped_column_comes_before_the_usual_names(
    fields: dict[str, object], columns: dict[str, str]
) -> None:
    assert _said(fields, columns=columns) == [("user", "Q"), ("assistant", "A")]


def test_a_mapped_column_is_not_read_under_its_own_name_too() -> None:
    columns = {"instruction": "input", "output": "target"}
    said = _said({"input": "Q", "target": "A"}, columns=columns)
    assert said == [("user", "Q"), ("assistant", "A")]


def test_a_mapped_input_does_not_stand_for_the_instruction_of_compared_answers() -> None:
    fields: dict[str, object] = {"instruction": "Q", "ctx": "c", "chosen": "A", "rejected": "no"}
    assert _said(fields, columns={"input": "ctx"}) == [("user", "Q\n\nc"), ("assistant", "A")]


def test_a_fault_stands_at_the_field_that_is_read() -> None:
    record = Record(RowRef("r.jsonl", 1), {"question": "Q", "answer": "no", "reply": 5})
    bad = to_conversation(record, RowSpec(columns={"completion": "reply"}))
    assert isinstance(bad, BadRow)
    assert [problem.path for problem in bad.problems] == ["completion"]


def test_a_field_that_is_null_gives_no_name_to_a_fault_of_another() -> None:
    record = Record(RowRef("r.jsonl", 1), {"question": "Q", "answer": None, "response": 5})
    bad = to_conversation(record, RowSpec())
    assert isinstance(bad, BadRow)
    assert [problem.path for problem in bad.problems] == ["response"]


def test_the_format_that_is_named_says_which_of_two_lists_of_turns_is_read() -> None:
    theirs = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    no = [{"role": "user", "content": "no"}, {"role": "assistant", "content": "no"}]
    both: dict[str, object] = {"messages": no, "conversations": theirs}
    assert _said(both, data_format="sharegpt") == [("user", "Q"), ("assistant", "A")]
    assert _said(both, data_format="messages") == [("user", "no"), ("assistant", "no")]


def test_a_named_format_whose_turns_are_missing_names_its_own_field() -> None:
    record = Record(RowRef("r.jsonl", 1), {"question": "Q"})
    bad = to_conversation(record, RowSpec(data_format="sharegpt"))
    assert isinstance(bad, BadRow)
    assert bad.problems[0].path == "conversations"


def test_a_field_of_turns_leaves_the_row_s_own_field_of_that_name_alone() -> None:
    turns = [{"label": turn["role"], "system": turn["content"]} for turn in TURNS]
    columns = {"role": "label", "content": "system"}
    said = _said({"messages": turns, "system": "S", "label": True}, columns=columns)
    assert said == [("system", "S"), ("user", "Q"), ("assistant", "A")]
    record = Record(RowRef("r.jsonl", 1), {"messages": turns, "label": False})
    bad = to_conversation(record, RowSpec(columns=columns))
    assert isinstance(bad, BadRow)
    assert bad.reason == "label: marked as undesirable: not trained"


def test_a_field_of_turns_may_have_the_name_of_the_list_that_holds_them() -> None:
    turns = [{"role": turn["role"], "prompt": turn["content"]} for turn in TURNS]
    fields: dict[str, object] = {"prompt": turns[:1], "chosen": turns[1:], "rejected": "no"}
    assert _said(fields, columns={"content": "prompt"}) == [("user", "Q"), ("assistant", "A")]
