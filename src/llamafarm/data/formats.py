"""The row formats of the field, recognised by their keys, brought into one: a Conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from llamafarm.data.json_reader import describe
from llamafarm.data.records import BadRow, Record
from llamafarm.data.row_reader import RowReader, join_blank_line
from llamafarm.data.rows import Conversation, Message
from llamafarm.errors import DataError, Problem
from llamafarm.strategy.model import DataFormat

_ANSWERS = ("output", "response", "answer", "completion")
_QUESTIONS = ("question", "query", "prompt", "q", "problem", "input")
_QA_ANSWERS = ("answer", "response", "a", "completion", "solution", "reply", "output")


@dataclass(frozen=True, slots=True)
class RowFormat:
    """keys: a row has this format when it has one name of each group; example: a correct row."""

    name: DataFormat
    keys: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    example: str
    parse: Callable[[RowReader], tuple[Message, ...] | str]


def _alpaca(row: RowReader) -> tuple[Message, ...]:
    instruction = row.optional_text("instruction")
    given = row.optional_text("input", "context")
    if not instruction.strip() and not given.strip():
        row.text("instruction")
    asked = Message(
        "user", join_blank_line([instruction, given]), instruction=instruction, input=given
    )
    answer = Message("assistant", row.text(*_ANSWERS))
    return (*_system(row), *_history(row), asked, answer)


def _system(row: RowReader) -> tuple[Message, ...]:
    system = row.optional_text("system", "system_prompt")
    return (Message("system", system),) if system.strip() else ()


def _history(row: RowReader) -> tuple[Message, ...]:
    value = row.value("history")
    if value is None:
        return ()
    if not isinstance(value, list):
        row.fault("history", f"expected a list of [question, answer], found {describe(value)}")
        return ()
    turns: list[Message] = []
    for i, pair in enumerate(value):
        match pair:
            case [str() as question, str() as answer] if question.strip() and answer.strip():
                turns += [Message("user", question), Message("assistant", answer)]
            case _:
                row.fault(
                    f"history[{i}]", "expected [question, answer], two texts that are not empty"
                )
    return tuple(turns)


def _messages(row: RowReader) -> tuple[Message, ...]:
    turns = row.messages("messages", role_key="role", content_key="content")
    return _with_answer(row, "messages", turns)


def _sharegpt(row: RowReader) -> tuple[Message, ...]:
    name = "conversations" if row.present("conversations") else "conversation"
    turns = row.messages(name, role_key="from", content_key="value")
    if not any(turn.role == "system" for turn in turns):
        turns = (*_system(row), *turns)
    return _with_answer(row, name, turns)


def _with_answer(row: RowReader, path: str, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    if turns and row.bad_row() is None and not any(turn.role == "assistant" for turn in turns):
        row.fault(path, "no turn of the assistant: nothing to learn", empty=True)
    return turns


def _prompt_completion(row: RowReader) -> tuple[Message, ...]:
    prompt = _side(row, "prompt", "user")
    completion = _side(row, "completion", "assistant")
    return _with_answer(row, "completion", (*_system(row), *prompt, *completion))


def _side(row: RowReader, name: str, role: str) -> tuple[Message, ...]:
    if isinstance(row.value(name), list):
        return row.messages(name, role_key="role", content_key="content")
    text = row.text(name)
    return (Message("user" if role == "user" else "assistant", text),)


def _qa(row: RowReader) -> tuple[Message, ...]:
    question = Message("user", row.text(*_QUESTIONS))
    return (*_system(row), question, Message("assistant", row.text(*_QA_ANSWERS)))


def _text(row: RowReader) -> str:
    return row.text("text")


FORMATS: Mapping[str, RowFormat] = {
    entry.name: entry
    for entry in (
        RowFormat(
            "messages",
            (("messages",),),
            (),
            '{"messages": [{"role": "user", "content": "…"}, '
            '{"role": "assistant", "content": "…"}]}',
            _messages,
        ),
        RowFormat(
            "sharegpt",
            (("conversations", "conversation"),),
            ("system",),
            '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}',
            _sharegpt,
        ),
        RowFormat(
            "alpaca",
            (("instruction",), _ANSWERS),
            ("input", "context", "system", "history"),
            '{"instruction": "…", "input": "", "output": "…"}',
            _alpaca,
        ),
        RowFormat(
            "prompt_completion",
            (("prompt",), ("completion",)),
            ("system",),
            '{"prompt": "…", "completion": "…"}',
            _prompt_completion,
        ),
        RowFormat(
            "qa",
            (_QUESTIONS, _QA_ANSWERS),
            ("system",),
            '{"question": "…", "answer": "…"}',
            _qa,
        ),
        RowFormat("text", (("text",),), (), '{"text": "…"}', _text),
    )
}


@dataclass(frozen=True, slots=True)
class RowSpec:
    """How rows are to be read. columns: our name for a field → the file's name for it."""

    data_format: DataFormat = "auto"
    columns: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        names = self.known_names()
        unknown = [name for name in self.columns or () if name not in names]
        if unknown:
            raise DataError(
                "dataset.columns names fields that there are not",
                [_unknown_column(name, names) for name in unknown],
            )

    def known_names(self) -> tuple[str, ...]:
        """Fields that a column may be given for."""
        wanted = [FORMATS[self.data_format]] if self.data_format != "auto" else FORMATS.values()
        found = {n for f in wanted for n in (*(k for group in f.keys for k in group), *f.optional)}
        return tuple(sorted(found))


def _unknown_column(name: str, names: tuple[str, ...]) -> Problem:
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(names)}"
    return Problem("unknown field", path=f"dataset.columns.{name}", hint=hint)


def recognise(record: Record, spec: RowSpec) -> RowFormat | None:
    """The format of a row by its keys; the first of FORMATS that fits.

    A forced format always fits.
    """
    if spec.data_format != "auto":
        return FORMATS[spec.data_format]
    keys = {str(key).strip().lower() for key in record.fields} | set(spec.columns or ())
    if {"chosen", "rejected"} <= keys:
        return None
    return next((f for f in FORMATS.values() if _groups_found(f, keys) == len(f.keys)), None)


def _groups_found(row_format: RowFormat, keys: set[str]) -> int:
    return sum(any(name in keys for name in group) for group in row_format.keys)


def to_conversation(record: Record, spec: RowSpec) -> tuple[Conversation, str] | BadRow:
    """A record as a conversation with the name of its format, or every fault that it has."""
    row_format = recognise(record, spec) or _nearest(record, spec)
    if row_format is None:
        return _unrecognised(record)
    row = RowReader(record, spec.columns or {}, row_format.example)
    parsed = row_format.parse(row)
    bad = row.bad_row()
    if bad:
        return bad
    if isinstance(parsed, str):
        return Conversation(record.source, text=parsed), row_format.name
    return Conversation(record.source, messages=parsed), row_format.name


def _nearest(record: Record, spec: RowSpec) -> RowFormat | None:
    """The format that lacks one field only, so that the message can name that field."""
    keys = {str(key).strip().lower() for key in record.fields} | set(spec.columns or ())
    if {"chosen", "rejected"} <= keys:
        return None
    best = max(FORMATS.values(), key=lambda f: _groups_found(f, keys))
    return best if _groups_found(best, keys) else None


def _unrecognised(record: Record) -> BadRow:
    keys = ", ".join(str(key) for key in record.fields)[:80] or "no fields"
    if {"chosen", "rejected"} <= record.fields.keys():
        message = "preference rows (chosen, rejected) are not trained by this version"
        hint = 'keep the chosen answer: {"prompt": "…", "completion": "…"}'
    else:
        message = f"no known format has these fields: {keys}"
        names = [str(key) for key in record.fields][:2]
        mapping = ", ".join(
            f"{o}: {t}" for o, t in zip(("question", "answer"), names, strict=False)
        )
        hint = (
            f"name them, e.g. {FORMATS['qa'].example}; or map them: dataset.columns: {{{mapping}}}"
        )
    return BadRow(record.source, (Problem(message, where=str(record.source), hint=hint),))
