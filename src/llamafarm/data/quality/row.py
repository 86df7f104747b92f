"""One conversation as the checks look at it: its texts joined once, its turns as letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamafarm.data.quality.scripts import Makeup, makeup
from llamafarm.data.rows import Conversation, Message, RowRef

ROLE_NAMES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


@dataclass(frozen=True, slots=True)
class QualityRow:
    """side: train, eval or test. text: everything, a turn a line.

    roles: a letter of ROLE_NAMES for each turn, none for plain text; blank: whether a turn says
    and does nothing. learnt: what is trained; prompt: the last turn before the last answer;
    answer: the last answer, None where there is none, as in plain text.
    prompt_characters: all that is read but not learnt.
    """

    source: RowRef
    side: str
    text: str
    makeup: Makeup
    roles: str
    blank: bool
    learnt: str
    prompt: str
    answer: str | None
    prompt_characters: int


def row_of(conversation: Conversation, side: str) -> QualityRow:
    """A row as the checks look at it."""
    if conversation.messages:
        return _chat(conversation, side)
    if conversation.segments:
        return _pieces(conversation, side)
    text = conversation.text
    source = conversation.source
    return QualityRow(source, side, text, makeup(text), "", False, text, "", None, 0)


def _chat(conversation: Conversation, side: str) -> QualityRow:
    messages = conversation.messages
    said = [m.content if not m.tool_calls else _said(m) for m in messages]
    text = "\n".join(said)
    learnt = [m.content for m in messages if m.role == "assistant" and m.trained]
    last = _last_answer(messages)
    prompt = messages[last - 1].content if last > 0 else ""
    return QualityRow(
        conversation.source,
        side,
        text,
        makeup(text),
        "".join([message.role[0] for message in messages]),
        "" in said or any(map(str.isspace, said)),
        learnt[0] if len(learnt) == 1 else "\n".join(learnt),
        prompt,
        messages[last].content if last >= 0 else None,
        sum(map(len, said)) - sum(map(len, learnt)),
    )


def _said(message: Message) -> str:
    """With the calls of tools."""
    calls = [f"{call.name} {dict(call.arguments)}" for call in message.tool_calls]
    return "\n".join([message.content, *calls]).lstrip("\n")


def _last_answer(messages: Sequence[Message]) -> int:
    """Index of the last answer in words that is learnt; -1 when there is none."""
    for i in range(len(messages) - 1, -1, -1):
        message = messages[i]
        if message.role == "assistant" and message.trained and message.content:
            return i
    return -1


def _pieces(conversation: Conversation, side: str) -> QualityRow:
    """Pieces of text have no roles: the last learnt piece is the answer to what precedes it."""
    pieces = conversation.segments
    text = "".join(piece.text for piece in pieces)
    learnt = [i for i, piece in enumerate(pieces) if piece.trained]
    last = learnt[-1] if learnt else -1
    return QualityRow(
        conversation.source,
        side,
        text,
        makeup(text),
        "",
        not text.strip(),
        "".join(pieces[i].text for i in learnt),
        pieces[last - 1].text if last > 0 and not pieces[last - 1].trained else "",
        pieces[last].text if last >= 0 else None,
        sum(len(piece.text) for piece in pieces if not piece.trained),
    )
