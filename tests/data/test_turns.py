from __future__ import annotations

from dataclasses import replace

from llamafarm.data.rows import Conversation, Message, RowRef, Segment, ToolCall
from llamafarm.data.turns import asked_before, is_learnt, last_answer, only_last_answer

SOURCE = RowRef("r.jsonl", 1)
CALL = Message("assistant", "", tool_calls=(ToolCall("clock", {}),))
TURNS = (
    Message("user", "Hi"),
    Message("assistant", "Hello"),
    Message("user", "What time is it?"),
    CALL,
    Message("tool", "12:00"),
    Message("assistant", "Noon."),
    Message("user", "Thanks"),
)


def _trained(conversation: Conversation) -> list[str]:
    return [m.content for m in conversation.messages if m.role == "assistant" and m.trained]


def test_only_the_last_answer_is_trained_and_nothing_else_changes() -> None:
    before = Conversation(SOURCE, TURNS, tools=({"type": "function"},))
    after = only_last_answer(before)
    assert _trained(after) == ["Noon."]
    assert _trained(before) == ["Hello", "", "Noon."]
    assert replace(after, messages=()) == replace(before, messages=())
    assert [replace(m, trained=True) for m in after.messages] == list(TURNS)


def test_an_answer_that_is_not_to_be_learnt_is_not_the_last_one() -> None:
    turns = (*TURNS[:5], replace(TURNS[5], trained=False))
    assert _trained(only_last_answer(Conversation(SOURCE, turns))) == [""]


def test_what_has_one_answer_or_none_stays_the_same() -> None:
    for conversation in (
        Conversation(SOURCE, TURNS[:2]),
        Conversation(SOURCE, TURNS[:1]),
        Conversation(SOURCE, text="Once."),
        Conversation(SOURCE, segments=(Segment("a", True), Segment("b", True))),
    ):
        assert only_last_answer(conversation) == conversation


def test_a_question_goes_with_the_last_learnt_answer() -> None:
    assert last_answer(TURNS) == 5
    assert last_answer((*TURNS[:5], replace(TURNS[5], trained=False))) == 3
    assert last_answer(TURNS[:1]) is None
    assert asked_before(TURNS, 5) == "What time is it?"
    assert asked_before(TURNS, 1) == "Hi"
    assert asked_before(TURNS, None) == "Thanks"
    assert asked_before((), None) == ""


def test_only_answers_that_are_to_be_trained_are_learnt() -> None:
    assert [i for i, message in enumerate(TURNS) if is_learnt(message)] == [1, 3, 5]
    assert not is_learnt(replace(CALL, trained=False))
