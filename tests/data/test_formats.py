from __future__ import annotations

import json

import pytest

from llamafarm.data.formats import FORMATS, RowSpec, to_conversation
from llamafarm.data.records import BadRow, Record
from llamafarm.data.rows import Conversation, RowRef
from llamafarm.errors import DataError

Q, A = "Why?", "Because."
ASKED = [("user", Q), ("assistant", A)]


def _parse(fields: dict[str, object], **spec: object) -> tuple[Conversation, str]:
    parsed = to_conversation(Record(RowRef("r.jsonl", 7), fields), RowSpec(**spec))  # type: ignore[arg-type]
    assert not isinstance(parsed, BadRow), parsed.reason
    return parsed


def _turns(fields: dict[str, object], **spec: object) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in _parse(fields, **spec)[0].messages]


def _bad(fields: dict[str, object], **spec: object) -> BadRow:
    parsed = to_conversation(Record(RowRef("r.jsonl", 7), fields), RowSpec(**spec))  # type: ignore[arg-type]
    assert isinstance(parsed, BadRow)
    return parsed


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"instruction": Q, "output": A}, "alpaca"),
        ({"instruction": Q, "input": "", "output": A}, "alpaca"),
        ({"instruction": Q, "input": None, "output": A, "history": [], "system": ""}, "alpaca"),
        ({"instruction": "", "input": Q, "output": A}, "alpaca"),
        ({"instruction": Q, "context": "", "response": A, "category": "qa"}, "alpaca"),
        ({"Instruction": Q, "Output": A}, "alpaca"),
        ({"prompt": Q, "completion": A}, "prompt_completion"),
        ({"question": Q, "answer": A}, "qa"),
        ({" Question ": Q, "ANSWER": A}, "qa"),
        ({"query": Q, "response": A, "id": 5}, "qa"),
        ({"q": Q, "a": A}, "qa"),
        ({"prompt": Q, "response": A}, "qa"),
        ({"input": Q, "output": A}, "qa"),
        ({"problem": Q, "solution": A}, "qa"),
        (
            {"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]},
            "messages",
        ),
        (
            {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
            "sharegpt",
        ),
        (
            {"conversations": [{"role": "user", "content": Q}, {"role": "model", "content": A}]},
            "sharegpt",
        ),
        ({"prompt": [{"role": "user", "content": Q}], "completion": A}, "prompt_completion"),
        (
            {
                "prompt": [{"role": "user", "content": Q}],
                "completion": [{"role": "assistant", "content": A}],
            },
            "prompt_completion",
        ),
    ],
)
def test_formats_are_recognised_by_their_keys(fields: dict[str, object], name: str) -> None:
    conversation, found = _parse(fields)
    assert found == name
    assert [(m.role, m.content) for m in conversation.messages] == ASKED
    assert str(conversation.source) == "r.jsonl:7"


def test_a_text_has_no_turns() -> None:
    conversation, name = _parse({"text": "Once upon a time.", "label": 3})
    assert (conversation.text, conversation.messages, name) == ("Once upon a time.", (), "text")


def test_alpaca_joins_instruction_and_input_and_keeps_both_apart() -> None:
    conversation, _ = _parse(
        {
            "system": "Be kind.",
            "history": [["Hi", "Hello"]],
            "instruction": "Translate.",
            "input": "Katze",
            "output": "cat",
        }
    )
    assert [(m.role, m.content) for m in conversation.messages] == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Translate.\n\nKatze"),
        ("assistant", "cat"),
    ]
    assert (conversation.messages[3].instruction, conversation.messages[3].input) == (
        "Translate.",
        "Katze",
    )


def test_roles_have_the_names_of_all_tools_in_use() -> None:
    turns = _turns(
        {
            "conversations": [
                {"from": "developer", "value": "Be brief."},
                {"from": "Human", "value": Q},
                {"from": "chatgpt", "value": "Hm."},
                {"from": "user", "value": "And?"},
                {"from": "assistant", "value": A},
            ]
        }
    )
    assert [role for role, _ in turns] == ["system", "user", "assistant", "user", "assistant"]


def test_content_may_be_a_list_of_text_parts() -> None:
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    turns = _turns(
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": A}]}
    )
    assert turns == ASKED


def test_the_system_of_a_sharegpt_row_comes_first() -> None:
    turns = _turns(
        {
            "system": "Be kind.",
            "conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}],
        }
    )
    assert turns == [("system", "Be kind."), *ASKED]


def test_an_empty_system_turn_is_none() -> None:
    turns = _turns(
        {
            "messages": [
                {"role": "system", "content": " "},
                {"role": "user", "content": Q},
                {"role": "assistant", "content": A},
            ]
        }
    )
    assert turns == ASKED


def test_every_example_in_a_hint_is_a_row_of_its_format() -> None:
    for row_format in FORMATS.values():
        fields = json.loads(row_format.example)
        assert _parse(fields)[1] == row_format.name


def test_a_forced_format_is_obeyed() -> None:
    fields = {"instruction": "x", "output": "y", "question": Q, "answer": A}
    assert _parse(fields)[1] == "alpaca"
    assert _turns(fields, data_format="qa") == ASKED
    assert "text" in _bad(fields, data_format="text").reason


def test_columns_map_our_names_to_those_of_the_file() -> None:
    fields = {"Frage": Q, "Antwort": A, "answer": "not this one"}
    assert _turns(fields, columns={"question": "Frage", "answer": "Antwort"}) == ASKED


def test_a_column_that_a_row_lacks_is_named() -> None:
    bad = _bad({"Frage": Q}, columns={"question": "Frage", "answer": "Antwort"})
    assert bad.reason == "answer: expected text, found no column 'Antwort'"


def test_an_unknown_column_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        RowSpec(columns={"questoin": "Frage"})
    assert "did you mean `question`?" in caught.value.render()


def test_a_row_with_several_faults_names_them_all() -> None:
    bad = _bad({"question": 5, "answer": ["x"]})
    assert [p.path for p in bad.problems] == ["question", "answer"]
    assert all(p.where == "r.jsonl:7" for p in bad.problems)
    assert all('{"question": "…", "answer": "…"}' in p.hint for p in bad.problems)
    assert not bad.empty


@pytest.mark.parametrize(
    ("fields", "empty"),
    [
        ({"question": Q, "answer": ""}, True),
        ({"question": Q, "answer": None}, True),
        ({"question": Q}, True),
        ({"question": 5, "answer": ""}, False),
        ({"messages": []}, True),
        ({"messages": [{"role": "user", "content": Q}]}, True),
        ({"frage": Q}, False),
        ({"text": "  "}, True),
    ],
)
def test_rows_that_only_lack_a_text_are_told_from_rows_that_are_wrong(
    fields: dict[str, object], empty: bool
) -> None:
    assert _bad(fields).empty is empty


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "assistant", "content": A, "weight": 0}, "weights of turns"),
        ({"role": "assistant", "content": A, "reasoning_content": "hm"}, "<think>"),
        ({"role": "assistant", "content": None}, "found null"),
        ({"role": "assistant", "content": 7}, "a number (7)"),
        ({"role": "assistant", "content": ["x"]}, "expected a text part"),
        ({"role": "function_call", "content": "x"}, "tool calls"),
    ],
)
def test_what_a_turn_cannot_say_here_is_an_error(turn: dict[str, object], said: str) -> None:
    assert said in _bad({"messages": [{"role": "user", "content": Q}, turn]}).reason


@pytest.mark.parametrize("history", ["x", [["only one"]], [[Q, ""]], [{"q": Q}], [[Q, 5]]])
def test_a_broken_history_is_a_fault(history: object) -> None:
    assert "history" in _bad({"instruction": Q, "output": A, "history": history}).reason


def test_a_row_of_tools_is_refused() -> None:
    fields = {
        "tools": [{"name": "add"}],
        "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
    }
    assert "tool calls" in _bad(fields).reason
