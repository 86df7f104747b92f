from __future__ import annotations

from llamafarm.data.rows import Message, ToolCall
from llamafarm.data.template_messages import SPELLINGS, CallSpelling, template_messages

ASKED = Message("user", "Weather?")
ROME = ToolCall("weather", {"city": "Röme"}, "call_of_rome")
OSLO = ToolCall("weather", {"city": "Oslo"}, "oslo12345")
CALLING = Message("assistant", "", tool_calls=(ROME, OSLO))
FOUND = (Message("tool", "30", name="weather"), Message("tool", "5"))
TURNS = (ASKED, CALLING, *FOUND, Message("assistant", "Warm and cold."))


def test_the_usual_spelling_is_that_of_openai_with_arguments_as_an_object() -> None:
    assert template_messages(TURNS, SPELLINGS[0]) == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_of_rome",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Röme"}},
                },
                {
                    "id": "oslo12345",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Oslo"}},
                },
            ],
        },
        {"role": "tool", "content": "30", "name": "weather", "tool_call_id": "call_of_rome"},
        {"role": "tool", "content": "5", "tool_call_id": "oslo12345"},
        {"role": "assistant", "content": "Warm and cold."},
    ]


def test_a_call_without_an_id_has_none() -> None:
    calling = Message("assistant", "Hm.", tool_calls=(ToolCall("clock", {}),))
    first, found = template_messages((calling, Message("tool", "12:00")), SPELLINGS[0])
    assert first["tool_calls"] == [
        {"type": "function", "function": {"name": "clock", "arguments": {}}}
    ]
    assert first["content"] == "Hm."
    assert found == {"role": "tool", "content": "12:00"}


def test_each_other_need_of_a_template_is_met() -> None:
    def call(spelling: CallSpelling) -> dict[str, object]:
        calls: list[dict[str, object]] = template_messages(TURNS, spelling)[1]["tool_calls"]
        return calls[0]

    assert template_messages(TURNS, CallSpelling(blank_content=True))[1]["content"] == ""
    text = call(CallSpelling(text_arguments=True))
    assert text["function"] == {"name": "weather", "arguments": '{"city": "Röme"}'}
    flat = call(CallSpelling(flat=True))
    assert flat == {**call(SPELLINGS[0]), "name": "weather", "arguments": {"city": "Röme"}}


def test_ids_of_nine_letters_are_made_where_they_are_needed_and_kept_where_they_are() -> None:
    rendered = template_messages((*TURNS, *TURNS), CallSpelling(short_ids=True))
    calls = [call["id"] for turn in rendered for call in turn.get("tool_calls", ())]
    assert calls == ["call00000", "oslo12345", "call00002", "oslo12345"]
    answered = [turn["tool_call_id"] for turn in rendered if turn["role"] == "tool"]
    assert answered == calls


def test_the_nearest_spelling_to_the_usual_one_is_tried_first() -> None:
    assert SPELLINGS[0] == CallSpelling()
    assert len(set(SPELLINGS)) == 16
