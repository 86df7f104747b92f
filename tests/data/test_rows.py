from __future__ import annotations

import pytest

from llamafarm.data.rows import Conversation, Message, RowRef, ToolCall

ASKED = Message("user", "Weather?")
ANSWER = Message("assistant", "Warm.")
CALLING = Message("assistant", "", tool_calls=(ToolCall("weather", {}),))


@pytest.mark.parametrize(
    ("row", "has_tools"),
    [
        (Conversation(RowRef("r", 1), (ASKED, ANSWER)), False),
        (Conversation(RowRef("r", 1), text="Plain."), False),
        (Conversation(RowRef("r", 1), (ASKED, ANSWER), tools=({"name": "weather"},)), True),
        (Conversation(RowRef("r", 1), (ASKED, CALLING)), True),
        (Conversation(RowRef("r", 1), (ASKED, Message("tool", "30"), ANSWER)), True),
    ],
)
def test_a_row_has_tools_where_some_are_described_called_or_answer(
    row: Conversation, has_tools: bool
) -> None:
    assert row.has_tools == has_tools
