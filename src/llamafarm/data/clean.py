"""What happens to conversations before they are split, and when two of them are the same."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from llamafarm.data.rows import Conversation, Message
from llamafarm.errors import DataError, Problem

_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Cleaner:
    """Removes patterns from every text of a conversation."""

    patterns: tuple[re.Pattern[str], ...] = ()

    def clean(self, conversation: Conversation) -> Conversation:
        """The conversation without the patterns; its texts may be blank afterwards."""
        if not self.patterns:
            return conversation
        messages = tuple(
            replace(
                message,
                content=self._without(message.content),
                instruction=self._without(message.instruction),
                input=self._without(message.input),
            )
            for message in conversation.messages
        )
        return replace(conversation, messages=messages, text=self._without(conversation.text))

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
    """Name of the first text that is blank, or an empty string."""
    if not conversation.messages:
        return "" if conversation.text.strip() else "text"
    blank = (m.role for m in conversation.messages if m.role != "system" and not m.content.strip())
    return next(blank, "")


def without_blank_system(conversation: Conversation) -> Conversation:
    """A system prompt that cleaning left blank is none."""
    kept = tuple(m for m in conversation.messages if m.role != "system" or m.content.strip())
    return replace(conversation, messages=kept)


def content_key(conversation: Conversation) -> bytes:
    """Digest of what a row says: rows that differ only in Unicode form or white space are equal."""
    digest = blake2b(digest_size=_KEY_BYTES)
    for role, content in _parts(conversation.messages, conversation.text):
        digest.update(f"{role}\0{_normalise(content)}\0".encode())
    return digest.digest()


def _parts(messages: Sequence[Message], text: str) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in messages] if messages else [("text", text)]


def fields_key(fields: Mapping[str, object]) -> bytes:
    """The same for a record of no known format: of all its fields, in any order."""
    text = json.dumps(fields, sort_keys=True, default=str)
    return blake2b(_normalise(text).encode(), digest_size=_KEY_BYTES).digest()


def _normalise(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
