"""A row that was found in a file, and the forms in which it can be written."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llamafarm.data.documents.request import RowShape
from llamafarm.data.formats import RowSpec, to_conversation
from llamafarm.data.records import BadRow, Record
from llamafarm.data.rows import Conversation, Message, RowRef

AS_IT_WAS = "as it was"
TEXT_SHAPE = "text"

_ANY_FORMAT = RowSpec()


@dataclass(frozen=True, slots=True)
class FoundRow:
    """Turns, or a text.

    kind: what it was in its file, in the singular; number: the line, record, page or paragraph it
    starts on; extra: fields of its file that are written beside it; fields: the whole row, where
    only that says all of it (calls of tools, turns that are not trained, rejected answers).
    segments: the texts of a row of pieces; beside: what such a whole row says beside its texts.
    Rows of equal texts say the same only where this is equal too.
    """

    kind: str
    number: int
    messages: tuple[Message, ...] = ()
    text: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)
    fields: Mapping[str, object] | None = None
    segments: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def texts(self) -> Iterator[str]:
        """Its texts, to be measured and compared."""
        if self.text:
            yield self.text
        yield from (message.content for message in self.messages)
        yield from self.segments


def asked_and_answered(kind: str, number: int, question: str, answer: str) -> FoundRow:
    """One exchange."""
    return FoundRow(kind, number, (Message("user", question), Message("assistant", answer)))


def shape_of(row: FoundRow, wanted: RowShape) -> tuple[str, frozenset[str]]:
    """The form in which it is written, and the names of other fields that cannot stand beside it:
    they would take the place of its own, or make another row of it.

    A text has no question. Alpaca holds one exchange; where fields cannot stand beside it that can
    beside messages, it is messages.
    """
    if row.fields is not None:
        return AS_IT_WAS, frozenset()
    if not row.messages:
        return TEXT_SHAPE, _left_out(row, TEXT_SHAPE)
    if wanted == "alpaca" and _is_one_exchange(row.messages):
        lost = _left_out(row, "alpaca")
        if not lost or len(lost) <= len(_left_out(row, "messages")):
            return "alpaca", lost
    return "messages", _left_out(row, "messages")


def _left_out(row: FoundRow, shape: str) -> frozenset[str]:
    own = _fields(row, shape)
    if not _is_changed_by(row.extra, own):
        return frozenset()
    kept: dict[str, object] = {}
    for name, value in row.extra.items():
        if not _is_changed_by({**kept, name: value}, own):
            kept[name] = value
    return frozenset(row.extra.keys() - kept.keys())


def json_line(row: FoundRow, shape: str, without: frozenset[str]) -> bytes:
    """The row as a line of JSONL. without: names of other fields that are not written.

    Raises TypeError and ValueError for what JSON cannot hold.
    """
    own = _fields(row, shape)
    others = {name: value for name, value in row.extra.items() if name not in without}
    text = json.dumps({**own, **others}, ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode("utf-8") + b"\n"


def _fields(row: FoundRow, shape: str) -> Mapping[str, object]:
    if row.fields is not None:
        return row.fields
    if shape == "alpaca":
        return _alpaca(row.messages)
    if shape == "messages":
        return {"messages": [{"role": m.role, "content": m.content} for m in row.messages]}
    return {"text": row.text}


def _is_one_exchange(messages: tuple[Message, ...]) -> bool:
    roles = [message.role for message in messages]
    return roles in (["user", "assistant"], ["system", "user", "assistant"])


def _alpaca(messages: tuple[Message, ...]) -> Mapping[str, object]:
    asked, answer = messages[-2:]
    fields = {
        "instruction": asked.instruction or asked.content,
        "input": asked.input if asked.instruction else "",
        "output": answer.content,
    }
    return {**fields, "system": messages[0].content} if len(messages) == 3 else fields


def _is_changed_by(others: Mapping[str, object], own: Mapping[str, object]) -> bool:
    """Whether a row of these fields would lose one of the others, or be read as another row."""
    if not others:
        return False
    return not others.keys().isdisjoint(own) or _read({**own, **others}) != _read(own)


def _read(fields: Mapping[str, object]) -> tuple[Conversation, str] | BadRow:
    return to_conversation(Record(RowRef("", 0), fields), _ANY_FORMAT)


def _plain(value: object) -> str:
    """Dates and exact numbers of Parquet files."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} values")
