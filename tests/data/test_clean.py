from __future__ import annotations

from dataclasses import replace

import pytest

from llamafarm.data.clean import blank_text, content_key, fields_key, make_cleaner
from llamafarm.data.rows import Conversation, Message, RowRef, Segment, ToolCall
from llamafarm.errors import DataError

SOURCE = RowRef("r.jsonl", 1)


def _row(question: str, answer: str = "Because.") -> Conversation:
    return Conversation(SOURCE, (Message("user", question), Message("assistant", answer)))


def test_patterns_are_removed_from_every_text() -> None:
    cleaner = make_cleaner([r"\[\d+\]", r"(?i)disclaimer:.*"])
    conversation = Conversation(
        SOURCE,
        (Message("user", "a[1]b", instruction="a[1]", input="b[2]"), Message("assistant", "c[22]")),
    )
    cleaned = cleaner.clean(conversation)
    assert [m.content for m in cleaned.messages] == ["ab", "c"]
    assert (cleaned.messages[0].instruction, cleaned.messages[0].input) == ("a", "b")
    assert cleaner.clean(Conversation(SOURCE, text="x DISCLAIMER: y")).text == "x "
    assert conversation.messages[0].content == "a[1]b"


def test_all_patterns_that_cannot_be_compiled_are_named() -> None:
    with pytest.raises(DataError) as caught:
        make_cleaner(["(", "fine", "[a"])
    assert [p.path for p in caught.value.problems] == [
        "data_preprocessing.remove_patterns[0]",
        "data_preprocessing.remove_patterns[2]",
    ]


def test_rows_that_differ_in_white_space_or_unicode_form_say_the_same() -> None:
    assert content_key(_row("Caf\u00e9 or  tea?\n")) == content_key(_row("Cafe\u0301 or tea?"))


@pytest.mark.parametrize(
    "other",
    [
        _row("why?"),
        _row("Why?", "Because!"),
        _row("Why? Because.", ""),
        Conversation(SOURCE, (Message("system", "x"), *_row("Why?").messages)),
        Conversation(SOURCE, (Message("assistant", "Why?"), Message("user", "Because."))),
        Conversation(SOURCE, text="Why? Because."),
    ],
)
def test_rows_that_say_something_else_have_another_key(other: Conversation) -> None:
    assert content_key(other) != content_key(_row("Why?"))


@pytest.mark.parametrize(
    "other", ["Caf\u00e9\nor tea?", " Cafe\u0301 or  tea? ", "Caf\u00e9 or tea?"]
)
def test_texts_inside_fields_calls_and_tools_are_normalised_as_contents_are(other: str) -> None:
    said = "Cafe\u0301 or tea?"
    assert fields_key({"x": {"y": [other]}}) == fields_key({"x": {"y": [said]}})
    assert content_key(_with_call(arguments={"q": [other]})) == content_key(
        _with_call(arguments={"q": [said]})
    )
    tools = [({"type": "function", "description": text},) for text in (other, said)]
    assert content_key(replace(CALLED, tools=tools[0])) == content_key(
        replace(CALLED, tools=tools[1])
    )


def test_two_fields_whose_names_differ_in_white_space_stay_two() -> None:
    assert fields_key({"a": 1, "a ": 2}) != fields_key({"a ": 2})


def test_records_of_no_known_format_are_compared_by_all_their_fields() -> None:
    assert fields_key({"a": "x  y", "b": 1}) == fields_key({"b": 1, "a": "x y"})
    assert fields_key({"a": "x"}) != fields_key({"b": "x"})


TOOL = {
    "type": "function",
    "function": {"name": "w[1]", "description": "Now[1].", "parameters": {"type": "x[1]"}},
}
CALL = ToolCall("w[1]", {"city": "Rome[1]", "days": [1, "two[2]"], "at": {"x": "y[3]"}}, "c[1]")
CALLING = Message("assistant", "", tool_calls=(CALL,))
FOUND = Message("tool", "30[1]", name="w[1]")
CALLED = Conversation(SOURCE, (*_row("Warm?").messages[:1], CALLING, FOUND), tools=(TOOL,))
PIECES = Conversation(SOURCE, segments=(Segment("Why?", False), Segment("Because.", True)))


def _with_call(**changes: object) -> Conversation:
    call = replace(CALL, **changes)  # type: ignore[arg-type]
    messages = (CALLED.messages[0], replace(CALLING, tool_calls=(call,)), FOUND)
    return replace(CALLED, messages=messages)


def test_patterns_are_removed_from_arguments_and_descriptions_but_not_from_names() -> None:
    cleaned = make_cleaner([r"\[\d+\]"]).clean(CALLED)
    assert cleaned.messages[1].tool_calls[0].arguments == {
        "city": "Rome",
        "days": [1, "two"],
        "at": {"x": "y"},
    }
    assert cleaned.messages[1].tool_calls[0].name == "w[1]"
    assert cleaned.messages[2] == Message("tool", "30", name="w[1]")
    (tool,) = cleaned.tools
    assert tool["function"] == {
        "name": "w[1]",
        "description": "Now.",
        "parameters": {"type": "x[1]"},
    }
    assert CALL.arguments["city"] == "Rome[1]"


def test_patterns_are_removed_from_pieces_of_text() -> None:
    cleaned = make_cleaner(["[?.]"]).clean(PIECES)
    assert cleaned.segments == (Segment("Why", False), Segment("Because", True))


@pytest.mark.parametrize(
    "other",
    [
        _with_call(name="x"),
        _with_call(arguments={"city": "Oslo"}),
        replace(CALLED, tools=()),
        replace(CALLED, messages=(*CALLED.messages[:2], replace(FOUND, name=""))),
        replace(CALLED, messages=(CALLED.messages[0], Message("assistant", ""), FOUND)),
        Conversation(SOURCE, segments=(Segment("Why?", True), Segment("Because.", True))),
        Conversation(SOURCE, segments=(Segment("Why?Because.", True),)),
        Conversation(SOURCE, text="Why?Because."),
    ],
)
def test_other_calls_tools_or_pieces_say_something_else(other: Conversation) -> None:
    assert content_key(other) not in (content_key(CALLED), content_key(PIECES))


def test_ids_of_calls_the_order_of_arguments_and_what_is_trained_change_nothing_that_is_said() -> (
    None
):
    turned = dict(reversed(CALL.arguments.items()))
    assert content_key(_with_call(id="", arguments=turned)) == content_key(CALLED)
    untrained = replace(_row("Why?"), messages=(*_row("Why?").messages[:1],))
    answer = replace(_row("Why?").messages[1], trained=False)
    untrained = replace(untrained, messages=(*untrained.messages, answer))
    assert content_key(untrained) == content_key(_row("Why?"))


@pytest.mark.parametrize(
    ("conversation", "blank"),
    [
        (CALLED, ""),
        (replace(CALLED, messages=(*CALLED.messages[:2], Message("tool", ""))), ""),
        (_row("Why?", " "), "assistant"),
        (_row(" "), "user"),
        (PIECES, ""),
        (Conversation(SOURCE, segments=(Segment("Why?", False), Segment(" ", True))), "segments"),
        (Conversation(SOURCE, text=" "), "text"),
    ],
)
def test_a_call_needs_no_words_but_a_trained_piece_of_text_does(
    conversation: Conversation, blank: str
) -> None:
    assert blank_text(conversation) == blank
