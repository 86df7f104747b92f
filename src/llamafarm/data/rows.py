"""Rows as the rest of the program sees them, whatever file and format they came from."""

from __future__ import annotations

from collections.abc import Mapping
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
class ToolCall:
    """One call of a tool by the assistant. arguments: JSON values by name; id: empty if none."""

    name: str
    arguments: Mapping[str, object]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    instruction, input: set where a row keeps the two apart (alpaca); content holds both then.
    trained: whether an assistant's turn is learnt; name: of the tool whose answer this is.
    """

    role: Role
    content: str
    instruction: str = ""
    input: str = ""
    trained: bool = True
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text that goes to the model as it is; trained: whether its tokens are learnt."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row to train on: messages; or a plain text, all of it trained; or pieces of text.

    tools: descriptions of the tools that the assistant may call, as JSON objects.
    """

    source: RowRef
    messages: tuple[Message, ...] = ()
    text: str = ""
    segments: tuple[Segment, ...] = ()
    tools: tuple[Mapping[str, object], ...] = ()

    @property
    def has_tools(self) -> bool:
        """Whether tools are described, called or answer in it."""
        return bool(self.tools) or any(m.tool_calls or m.role == "tool" for m in self.messages)
