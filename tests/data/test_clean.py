from __future__ import annotations

import pytest

from llamafarm.data.clean import content_key, fields_key, make_cleaner
from llamafarm.data.rows import Conversation, Message, RowRef
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


def test_records_of_no_known_format_are_compared_by_all_their_fields() -> None:
    assert fields_key({"a": "x  y", "b": 1}) == fields_key({"b": 1, "a": "x y"})
    assert fields_key({"a": "x"}) != fields_key({"b": "x"})
