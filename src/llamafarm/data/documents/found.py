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
    """

    kind: str
    number: int
    messages: tuple[Message, ...] = ()
    text: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)
    fields: Mapping[str, object] | None = None

    def texts(self) -> Iterator[str]:
        """Its texts, to be measured and compared."""
        if self.text:
            yield self.text
        yield from (message.content for message in self.messages)
        if self.fields is not None and not self.messages and not self.text:
            yield from (value for _, value in _leaves(self.fields) if isinstance(value, str))

    def beside(self) -> str:
        """What a row that is kept as it was holds beside its texts: calls of tools, rejected
        answers, numbers. Rows of equal texts say the same only where this is equal too.
        """
        if self.fields is None:
            return ""
        places = {text.strip(): f"text {i}" for i, text in enumerate(self.texts())}
        return "\n".join(
            f"{path}: {places.get(value.strip(), repr(value))}"
            if isinstance(value, str)
            else f"{path}: {value!r}"
            for path, value in _leaves(self.fields)
        )


def asked_and_answered(kind: str, number: int, question: str, answer: str) -> FoundRow:
    """One exchange."""
    return FoundRow(kind, number, (Message("user", question), Message("assistant", answer)))


def shape_of(row: FoundRow, wanted: RowShape) -> str:
    """The form in which it is written: alpaca holds one exchange, and only where the row's other
    fields do not make another row of it; a text has no question.
    """
    if row.fields is not None:
        return AS_IT_WAS
    if not row.messages:
        return TEXT_SHAPE
    if wanted != "alpaca" or not _is_one_exchange(row.messages):
        return "messages"
    return "messages" if _is_changed_by(row.extra, _alpaca(row.messages)) else "alpaca"


def json_line(row: FoundRow, shape: str) -> bytes:
    """The row as a line of JSONL, where its own fields come before others of the same name.

    Raises TypeError and ValueError for what JSON cannot hold.
    """
    own = _fields(row, shape)
    others = {name: value for name, value in row.extra.items() if name not in own}
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


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value that holds no others, with its place; names in alphabetical order."""
    if isinstance(value, Mapping):
        for name in sorted(value):
            yield from _leaves(value[name], f"{path}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def _plain(value: object) -> str:
    """Dates and exact numbers of Parquet files."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} values")
