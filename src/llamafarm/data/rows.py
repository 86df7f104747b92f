"""Rows as the rest of the program sees them, whatever file and format they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class RowRef:
    """Where a row was written.

    line: 1-based line of a text file, or 1-based record number (JSON, Parquet, Hub).
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    instruction, input: set where a row keeps the two apart (alpaca); content holds both then.
    """

    role: Role
    content: str
    instruction: str = ""
    input: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row to train on: messages, or a plain text (then every token of it is trained)."""

    source: RowRef
    messages: tuple[Message, ...] = ()
    text: str = ""
