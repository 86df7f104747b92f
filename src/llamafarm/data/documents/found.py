"""A row that was found in a file, and the forms in which it can be written."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llamafarm.data.documents.request import RowShape
from llamafarm.data.rows import Message

AS_IT_WAS = "as it was"
TEXT_SHAPE = "text"


@dataclass(frozen=True, slots=True)
class FoundRow:
    """Turns, or a text.

    kind: what it was in its file, in the singular; number: the line, record, page or paragraph it
    starts on; extra: fields of its file that are written beside it; fields: the whole row, where
    only that says all of it (calls of tools, turns that are not trained, rejected answers).
    """

    kind: str
    number: int
    messages: tuple[Message, ...] = ()
    text: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)
    fields: Mapping[str, object] | None = None

    def texts(self) -> Iterator[str]:
        """Everything that it says, to be measured and compared."""
        if self.text:
            yield self.text
        yield from (message.content for message in self.messages)
        if self.fields is not None and not self.messages and not self.text:
            yield from _texts_of(self.fields)


def asked_and_answered(kind: str, number: int, question: str, answer: str) -> FoundRow:
    """One exchange."""
    return FoundRow(kind, number, (Message("user", question), Message("assistant", answer)))


def shape_of(row: FoundRow, wanted: RowShape) -> str:
    """The form in which it is written: alpaca holds one exchange, a text has no question."""
    if row.fields is not None:
        return AS_IT_WAS
    if not row.messages:
        return TEXT_SHAPE
    return "alpaca" if wanted == "alpaca" and _is_one_exchange(row.messages) else "messages"


def json_line(row: FoundRow, shape: str) -> bytes:
    """The row as a line of JSONL. Raises TypeError and ValueError for what JSON cannot hold."""
    fields = {**_fields(row, shape), **row.extra}
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=_plain)
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


def _texts_of(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_of(inner)


def _plain(value: object) -> str:
    """Dates and exact numbers of Parquet files."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} values")
