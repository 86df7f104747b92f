from __future__ import annotations

import json
from typing import Any

import pytest

from llamafarm.data.formats import RowSpec, to_conversation
from llamafarm.data.records import BadRow, Record
from llamafarm.data.rows import Conversation, Message, RowRef, ToolCall

ASKED = {"role": "user", "content": "Weather?"}
ANSWER = {"role": "assistant", "content": "Warm."}
FUNCTION = {"name": "weather", "arguments": '{"city": "Rome"}'}
CALL = {"id": "c1", "type": "function", "function": FUNCTION}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
FOUND = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": '{"degrees": 30}'}
TOOL = {"name": "weather", "description": "Now.", "parameters": {"type": "object"}}
READ_CALL = ToolCall("weather", {"city": "Rome"}, "c1")


def _parse(fields: dict[str, object], **spec: Any) -> Conversation | BadRow:
    parsed = to_conversation(Record(RowRef("r.jsonl", 7), fields), RowSpec(**spec))
    return parsed if isinstance(parsed, BadRow) else parsed[0]


def _good(fields: dict[str, object], **spec: Any) -> Conversation:
    parsed = _parse(fields, **spec)
    assert isinstance(parsed, Conversation), parsed.reason
    return parsed


def _faults(fields: dict[str, object]) -> dict[str, str]:
    parsed = _parse(fields)
    assert isinstance(parsed, BadRow)
    return {problem.path: problem.message for problem in parsed.problems}


def _calls_with(**changes: object) -> dict[str, object]:
    return {"messages": [ASKED, {**CALLING, "tool_calls": [{**CALL, **changes}]}]}


def test_calls_and_answers_of_tools_in_openai_s_words() -> None:
    row = {"messages": [ASKED, CALLING, FOUND, ANSWER], "tools": [{"type": "x", "function": TOOL}]}
    conversation = _good(row)
    assert conversation.messages == (
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=(READ_CALL,)),
        Message("tool", '{"degrees": 30}', name="weather"),
        Message("assistant", "Warm."),
    )
    assert conversation.tools == ({"type": "x", "function": TOOL},)


def test_calls_and_answers_of_tools_in_sharegpt_s_words() -> None:
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": {"a": 1}})},
        {"from": "observation", "value": "30"},
        {"from": "gpt", "value": "Warm."},
    ]
    conversation = _good({"conversations": turns, "tools": json.dumps([TOOL])})
    assert [m.role for m in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert conversation.messages[1].tool_calls == (ToolCall("weather", {"a": 1}),)
    assert conversation.messages[1].content == ""
    assert conversation.tools == ({"type": "function", "function": TOOL},)


def test_one_turn_may_call_several_tools() -> None:
    value = json.dumps([FUNCTION, {"name": "clock", "arguments": {}}])
    turns = [{"from": "human", "value": "?"}, {"from": "function_call", "value": value}]
    calls = _good({"conversations": turns}).messages[1].tool_calls
    assert [call.name for call in calls] == ["weather", "clock"]


@pytest.mark.parametrize("arguments", ['{"city": "Rome"}', {"city": "Rome"}])
@pytest.mark.parametrize("flat", [True, False])
def test_arguments_are_objects_or_their_json(arguments: object, flat: bool) -> None:
    function = {"name": "weather", "arguments": arguments}
    call = {**function, "id": "c1"} if flat else {"id": "c1", "function": function}
    row = {"messages": [ASKED, {"role": "assistant", "tool_calls": [call]}]}
    assert _good(row).messages[1].tool_calls == (READ_CALL,)


def test_the_older_function_call_of_a_turn_is_read_with_its_functions() -> None:
    row = {
        "functions": [TOOL],
        "messages": [
            ASKED,
            {"role": "assistant", "content": None, "function_call": FUNCTION},
            {"role": "function", "name": "weather", "content": "30"},
            ANSWER,
        ],
    }
    conversation = _good(row)
    assert conversation.messages[1].tool_calls == (ToolCall("weather", {"city": "Rome"}),)
    assert conversation.messages[2] == Message("tool", "30", name="weather")
    assert conversation.tools == ({"type": "function", "function": TOOL},)


def test_a_turn_may_speak_and_call() -> None:
    turn = _good({"messages": [ASKED, {**CALLING, "content": "Let me look."}]}).messages[1]
    assert (turn.content, turn.tool_calls) == ("Let me look.", (READ_CALL,))


def test_a_tool_may_answer_nothing() -> None:
    conversation = _good({"messages": [ASKED, CALLING, {**FOUND, "content": ""}, ANSWER]})
    assert conversation.messages[2].content == ""


def test_answers_of_tools_come_in_the_order_of_their_calls() -> None:
    calls = [{**CALL, "id": name} for name in ("a", "b", "c")]
    found = [{**FOUND, "tool_call_id": name, "content": name} for name in ("c", "a", "b")]
    row = {"messages": [ASKED, {**CALLING, "tool_calls": calls}, *found, ANSWER]}
    assert [m.content for m in _good(row).messages[2:5]] == ["a", "b", "c"]


def test_answers_of_tools_without_ids_keep_their_order() -> None:
    found = [{"role": "tool", "content": text} for text in "ba"]
    row = {"messages": [ASKED, {**CALLING, "tool_calls": [CALL, CALL]}, *found, ANSWER]}
    assert [m.content for m in _good(row).messages[2:4]] == ["b", "a"]


def _calling(*names: str) -> dict[str, object]:
    return {**CALLING, "tool_calls": [{**CALL, "id": name} for name in names]}


def _found(name: str, content: str = "") -> dict[str, object]:
    said = {"role": "tool", "content": content or name}
    return {**said, "tool_call_id": name} if name else said


def _said(*turns: dict[str, object]) -> list[str]:
    messages = _good({"messages": [ASKED, *turns, ANSWER]}).messages
    return [m.content for m in messages if m.role == "tool"]


def test_answers_with_and_without_ids_together_leave_no_call_out() -> None:
    calling = _calling("a", "b", "c")
    assert _said(calling, _found("b"), _found("", "first"), _found("", "last")) == [
        "first",
        "b",
        "last",
    ]


def test_a_call_may_be_answered_later_than_the_one_before_it() -> None:
    assert _said(_calling("a", "b"), _found("a"), ANSWER, _found("b")) == ["a", "b"]


def test_ids_may_be_used_again_in_a_later_turn() -> None:
    turns = [_calling("a"), _found("a", "1"), _calling("a"), _found("a", "2")]
    assert _said(*turns) == ["1", "2"]


def test_the_last_calls_of_a_turn_may_be_without_answers() -> None:
    assert _said(_calling("a", "b"), _found("a")) == ["a"]
    assert _said(_calling("a", "b"), _found("", "both")) == ["both"]
    assert _said(_calling("a", "b"), ASKED, _calling("c"), _found("c")) == ["c"]


TOGETHER = "calls that are answered together stand in one turn"


@pytest.mark.parametrize(
    ("turns", "path", "said"),
    [
        (
            [_calling("a", "b"), _found("b")],
            "messages[2].tool_call_id",
            "answers the call weather (b), but weather (a) before it has no answer",
        ),
        (
            [_calling("a", "b", "c"), _found("a"), _found("c")],
            "messages[3].tool_call_id",
            "answers the call weather (c), but weather (b) before it has no answer",
        ),
        (
            [_calling("", "b"), _found("b")],
            "messages[2].tool_call_id",
            "answers the call weather (b), but weather before it has no answer",
        ),
        (
            [_calling("a", "b"), _found("a"), _found("a")],
            "messages[3].tool_call_id",
            "answers a call that has an answer already",
        ),
        (
            [_calling("a", "b"), _found("", "of a"), ANSWER, _found("a")],
            "messages[4].tool_call_id",
            "answers a call that has an answer already",
        ),
        (
            [_calling("a"), _calling("b"), _found("a"), _found("b")],
            "messages[3].tool_call_id",
            f"answers a call before the last turn that calls; {TOGETHER}",
        ),
        (
            [_calling(""), _calling(""), _found("", "1"), _found("", "2")],
            "messages[4]",
            f"answers no call of the last turn that calls; {TOGETHER}",
        ),
    ],
)
def test_an_answer_whose_call_its_place_does_not_tell_is_a_fault(
    turns: list[dict[str, object]], path: str, said: str
) -> None:
    ((found, message),) = _faults({"messages": [ASKED, *turns, ANSWER]}).items()
    assert found == path
    assert message.startswith(said)


def test_no_tools_and_no_calls_are_none() -> None:
    for tools in (None, "", " ", [], "[]"):
        turns = [ASKED, {**ANSWER, "tool_calls": []}]
        conversation = _good({"messages": turns, "tools": tools})
        assert (conversation.tools, conversation.messages[1].tool_calls) == ((), ())


CALLED = "messages[1].tool_calls[0]"
ARGUMENTS = f"{CALLED}.function.arguments"


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"function": {**FUNCTION, "arguments": "{city"}}, ARGUMENTS, "not valid JSON"),
        ({"function": {**FUNCTION, "arguments": "[1]"}}, ARGUMENTS, "found a list"),
        ({"function": {**FUNCTION, "arguments": '{"a": NaN}'}}, ARGUMENTS, "NaN is not JSON"),
        ({"function": {**FUNCTION, "arguments": '{"a":1,"a":2}'}}, ARGUMENTS, "stands twice"),
        ({"function": {**FUNCTION, "arguments": ""}}, ARGUMENTS, "without arguments has {}"),
        ({"function": {**FUNCTION, "arguments": "[" * 9999}}, ARGUMENTS, "too deeply"),
        ({"function": {**FUNCTION, "arguments": {"a": "\ud800"}}}, ARGUMENTS, "half of a char"),
        ({"function": {**FUNCTION, "arguments": {"a": b"x"}}}, ARGUMENTS, "not JSON serializable"),
        ({"function": {"name": "weather"}}, ARGUMENTS, "without arguments has {}"),
        ({"function": {**FUNCTION, "name": " "}}, f"{CALLED}.function.name", "an empty text"),
        ({"function": {"arguments": "{}"}}, f"{CALLED}.function.name", "found null"),
        ({"function": "weather"}, f"{CALLED}.function", 'text ("weather")'),
        ({"type": "custom"}, f"{CALLED}.type", 'text ("custom")'),
        ({"id": 5}, f"{CALLED}.id", "a number (5)"),
    ],
)
def test_a_malformed_call_is_named_with_its_path(
    changes: dict[str, object], path: str, said: str
) -> None:
    assert said in _faults(_calls_with(**changes))[path]


@pytest.mark.parametrize(
    "turn",
    [
        {**CALLING, "tool_calls": [{**CALL, "id": 1}]},
        {**CALLING, "tool_calls": {"a": 1}},
        {"role": "assistant", "function_call": "later"},
    ],
)
def test_a_call_that_cannot_be_read_is_the_only_fault_of_its_turn(turn: dict[str, object]) -> None:
    assert not [path for path in _faults({"messages": [ASKED, turn]}) if "content" in path]


@pytest.mark.parametrize("nothing", [[], "[]", None])
def test_a_turn_without_words_and_without_calls_lacks_its_words(nothing: object) -> None:
    turn = {**CALLING, "tool_calls": nothing}
    assert list(_faults({"messages": [ASKED, turn]})) == ["messages[1].content"]


@pytest.mark.parametrize(
    ("turn", "path", "said"),
    [
        ({**CALLING, "tool_calls": {"a": 1}}, "messages[1].tool_calls", "found an object"),
        ({**CALLING, "tool_calls": "{"}, "messages[1].tool_calls", "not valid JSON"),
        ({**CALLING, "tool_calls": ["x"]}, CALLED, "expected a tool call"),
        ({**ASKED, "tool_calls": [CALL]}, "messages[1]", "only the assistant calls tools"),
        ({"role": "function_call", "content": "later"}, "messages[1].content", "not valid JSON"),
        ({"role": "function_call", "content": "[]"}, "messages[1].content", "found a list"),
        ({"role": "function_call"}, "messages[1].content", "is null"),
        ({**FOUND, "content": None}, "messages[1].content", "found null"),
        ({**FOUND, "name": 5}, "messages[1].name", "a number (5)"),
    ],
)
def test_a_turn_of_tools_that_cannot_be_read_is_named(
    turn: dict[str, object], path: str, said: str
) -> None:
    assert said in _faults({"messages": [ASKED, turn, ANSWER]})[path]


def test_an_answer_to_no_call_is_a_fault() -> None:
    row = {"messages": [ASKED, CALLING, {**FOUND, "tool_call_id": "c2"}, ANSWER]}
    assert _faults(row) == {"messages[2].tool_call_id": "answers no call before it"}


@pytest.mark.parametrize(
    ("tools", "path", "said"),
    [
        (5, "tools", "a number (5)"),
        ("{", "tools", "not valid JSON"),
        (["weather"], "tools[0]", "not valid JSON"),
        ([5], "tools[0]", "a number (5)"),
        ([{"type": "function"}], "tools[0].function", "found null"),
        ([{"function": {"name": ""}}], "tools[0].function.name", "an empty text"),
        ([{"name": 5}], "tools[0].name", "a number (5)"),
    ],
)
def test_malformed_tools_are_named_with_their_path(tools: object, path: str, said: str) -> None:
    assert said in _faults({"messages": [ASKED, ANSWER], "tools": tools})[path]


@pytest.mark.parametrize(
    ("said", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": 1}, True),
        ({"weight": 0.0}, False),
        ({"weight": None}, True),
        ({"train": False}, False),
        ({"train_on_turn": False}, False),
        ({"training": False}, False),
        ({"train": True, "weight": 1}, True),
        ({}, True),
    ],
)
def test_a_turn_says_whether_it_is_learnt(said: dict[str, object], trained: bool) -> None:
    row = {"messages": [ASKED, {**ANSWER, **said}, ASKED, ANSWER]}
    assert [m.trained for m in _good(row).messages] == [True, trained, True, True]


def test_a_call_is_learnt_or_not_as_an_answer_is() -> None:
    value = {"from": "function_call", "value": FUNCTION, "train": False}
    turns = [{"from": "human", "value": "?"}, value, {"from": "gpt", "value": "Warm."}]
    assert not _good({"conversations": turns}).messages[1].trained


@pytest.mark.parametrize(
    ("turn", "path", "said"),
    [
        ({**ANSWER, "weight": 0.5}, "messages[1].weight", "a number (0.5)"),
        ({**ANSWER, "weight": True}, "messages[1].weight", "found true"),
        ({**ANSWER, "train": 1}, "messages[1].train", "a number (1)"),
        ({**ANSWER, "train": True, "weight": 0}, "messages[1]", "contradict"),
        ({**ASKED, "weight": 1}, "messages[1].weight", "only the assistant's turns"),
    ],
)
def test_a_weight_that_cannot_be_obeyed_is_a_fault(
    turn: dict[str, object], path: str, said: str
) -> None:
    assert said in _faults({"messages": [ASKED, turn, ANSWER]})[path]


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "train_detail"])
@pytest.mark.parametrize("nothing", ["", " \n", None])
def test_a_field_that_is_not_obeyed_may_be_empty(key: str, nothing: object) -> None:
    assert _good({"messages": [ASKED, {**ANSWER, key: nothing}]}).messages[1].content == "Warm."
    assert f"messages[1].{key}" in _faults({"messages": [ASKED, {**ANSWER, key: "Hm"}]})


def test_a_row_of_which_nothing_is_to_be_learnt_is_a_fault() -> None:
    row = {"messages": [{**ASKED, "weight": 0}, {**ANSWER, "weight": 0}]}
    assert "no turn of the assistant is trained" in _faults(row)["messages"]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("ai", "assistant"),
        ("AI ", "assistant"),
        ("prompter", "user"),
        ("developer", "system"),
        ("tool_response", "tool"),
        ("ipython", "tool"),
    ],
)
def test_roles_go_by_many_names(name: str, role: str) -> None:
    turns = [{"role": name, "content": "x"}, ASKED, CALLING, FOUND, ANSWER]
    assert _good({"messages": turns}).messages[0].role == role


def test_the_file_s_own_name_for_a_call_is_mapped() -> None:
    turns = [{"from": "human", "value": "?"}, {"from": "Invoke", "value": FUNCTION}]
    conversation = _good({"conversations": turns}, roles={"function_call": "invoke"})
    assert conversation.messages[1].tool_calls[0].name == "weather"
