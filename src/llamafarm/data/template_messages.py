"""Messages as chat templates take them: the dictionaries of the transformers library.

Templates differ in how they read a tool call, so a `CallSpelling` says what one of them needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from llamafarm.data.rows import Message, ToolCall

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")


@dataclass(frozen=True, slots=True)
class CallSpelling:
    """What a template needs beyond OpenAI's way of writing a call, arguments as an object.

    blank_content: a turn without text has an empty one, not null; text_arguments: arguments are
    JSON text; flat: name and arguments stand in the call itself too; short_ids: every call has an
    id of nine letters and digits.
    """

    blank_content: bool = False
    text_arguments: bool = False
    flat: bool = False
    short_ids: bool = False


# The nearer to the usual way, the earlier.
SPELLINGS = tuple(
    CallSpelling(*needs) for needs in sorted(product((False, True), repeat=4), key=sum)
)


def template_messages(messages: Sequence[Message], spelling: CallSpelling) -> list[dict[str, Any]]:
    """What a template gets under `messages`. The n-th answer of a tool belongs to the n-th call."""
    for message in messages:
        if message.tool_calls:
            return list(_with_calls(messages, spelling))
    return [_plain(message) for message in messages]


def _plain(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.instruction:
        fields["instruction"] = message.instruction
    if message.input:
        fields["input"] = message.input
    if message.name:
        fields["name"] = message.name
    return fields


def _with_calls(messages: Sequence[Message], spelling: CallSpelling) -> Iterator[dict[str, Any]]:
    count = 0
    waiting: list[str] = []
    for message in messages:
        fields = _plain(message)
        if message.tool_calls:
            ids = [_id(call, count + i, spelling) for i, call in enumerate(message.tool_calls)]
            count, waiting = count + len(ids), ids[::-1]
            pairs = zip(message.tool_calls, ids, strict=True)
            fields["tool_calls"] = [_call(call, number, spelling) for call, number in pairs]
            if not message.content and not spelling.blank_content:
                fields["content"] = None
        elif message.role == "tool" and waiting and (number := waiting.pop()):
            fields["tool_call_id"] = number
        yield fields


def _id(call: ToolCall, number: int, spelling: CallSpelling) -> str:
    if spelling.short_ids and not _SHORT_ID.fullmatch(call.id):
        return f"call{number:05d}"
    return call.id


def _call(call: ToolCall, number: str, spelling: CallSpelling) -> dict[str, Any]:
    arguments: Mapping[str, object] | str = call.arguments
    if spelling.text_arguments:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    fields: dict[str, Any] = {"id": number} if number else {}
    fields |= {"type": "function", "function": function}
    return fields | function if spelling.flat else fields
