"""What happens to conversations before they are split, and when two of them are the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from llamafarm.data.rows import Conversation, Message
from llamafarm.data.unicode_form import normalised
from llamafarm.errors import DataError, Problem

_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Cleaner:
    """Removes patterns from every text of a conversation: contents, texts among the arguments of
    tool calls, and descriptions of tools. Names stay.
    """

    patterns: tuple[re.Pattern[str], ...] = ()

    def clean(self, conversation: Conversation) -> Conversation:
        """The conversation without the patterns; its texts may be blank afterwards."""
        if not self.patterns:
            return conversation
        return replace(
            conversation,
            messages=tuple(self._message(message) for message in conversation.messages),
            text=self._without(conversation.text),
            segments=tuple(replace(s, text=self._without(s.text)) for s in conversation.segments),
            tools=tuple(self._object(tool, "description") for tool in conversation.tools),
        )

    def _message(self, message: Message) -> Message:
        calls = tuple(
            replace(call, arguments=self._object(call.arguments)) for call in message.tool_calls
        )
        return replace(
            message,
            content=self._without(message.content),
            instruction=self._without(message.instruction),
            input=self._without(message.input),
            tool_calls=calls,
        )

    def _object(self, fields: Mapping[str, object], only: str = "") -> Mapping[str, object]:
        """only: the one name whose texts are cleaned; empty: the texts of all names."""
        return {
            name: self._value(value, only, named=not only or name == only)
            for name, value in fields.items()
        }

    def _value(self, value: object, only: str, *, named: bool) -> object:
        if isinstance(value, Mapping):
            return self._object(value, only)
        if isinstance(value, list):
            return [self._value(item, only, named=named) for item in value]
        return self._without(value) if named and isinstance(value, str) else value

    def _without(self, text: str) -> str:
        for pattern in self.patterns:
            text = pattern.sub("", text)
        return text


def make_cleaner(remove_patterns: Sequence[str]) -> Cleaner:
    """Compile the patterns. Raises DataError naming every one that is not a regular expression."""
    compiled: list[re.Pattern[str]] = []
    problems: list[Problem] = []
    for i, pattern in enumerate(remove_patterns):
        try:
            compiled.append(re.compile(pattern))
        except re.error as fault:
            path = f"data_preprocessing.remove_patterns[{i}]"
            hint = "a literal ( [ . * + ? is written with a backslash before it"
            problems.append(Problem(f"{fault} (got {pattern!r})", path=path, hint=hint))
    if problems:
        raise DataError("remove_patterns holds what is not a regular expression", problems)
    return Cleaner(tuple(compiled))


def blank_text(conversation: Conversation) -> str:
    """Name of the first text that is blank, or an empty string.

    A turn that calls tools needs no text, and a tool may answer nothing. Of pieces of text the
    trained ones must hold something.
    """
    if conversation.segments:
        trained = any(s.trained and s.text.strip() for s in conversation.segments)
        return "" if trained else "segments"
    if not conversation.messages:
        return "" if conversation.text.strip() else "text"
    needed = (m for m in conversation.messages if m.role in ("user", "assistant"))
    return next((m.role for m in needed if not m.content.strip() and not m.tool_calls), "")


def without_blank_system(conversation: Conversation) -> Conversation:
    """A system prompt that cleaning left blank is none."""
    kept = tuple(m for m in conversation.messages if m.role != "system" or m.content.strip())
    return replace(conversation, messages=kept)


def content_key(conversation: Conversation) -> bytes:
    """Digest of what a row says: rows are equal that differ only in the Unicode form and the white
    space of their texts, in the ids of tool calls, or in which turns are trained.
    """
    digest = blake2b(digest_size=_KEY_BYTES)
    for kind, said in parts(conversation):
        digest.update(f"{kind}\0{_normalise(said)}\0".encode())
    return digest.digest()


def parts(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Kind and text of everything that is said. Which pieces of text are trained is part of what
    they say, as it is with the roles of turns.
    """
    for tool in conversation.tools:
        yield "tools", _written(tool)
    for message in conversation.messages:
        yield message.role, message.content
        if message.name:
            yield "name", message.name
        for call in message.tool_calls:
            yield "call", call.name
            yield "arguments", _written(call.arguments)
    for segment in conversation.segments:
        yield "answer" if segment.trained else "prompt", segment.text
    if not conversation.messages and not conversation.segments:
        yield "text", conversation.text


def fields_key(fields: Mapping[str, object]) -> bytes:
    """The same for a record of no known format: of all its fields, in any order."""
    return blake2b(_written(fields).encode(), digest_size=_KEY_BYTES).digest()


def _written(value: object) -> str:
    """A value as JSON, its texts normalised before: JSON writes a line feed as two characters that
    are no white space. Keys stay, so that no two become one.
    """
    return json.dumps(_normalised_inside(value), sort_keys=True, ensure_ascii=False, default=str)


def _normalised_inside(value: object) -> object:
    if isinstance(value, str):
        return _normalise(value)
    if isinstance(value, Mapping):
        return {key: _normalised_inside(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_normalised_inside(inner) for inner in value]
    return value


def _normalise(text: str) -> str:
    return " ".join(normalised("NFC", text).split())
