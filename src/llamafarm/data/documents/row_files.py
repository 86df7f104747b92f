"""Files that hold rows already: JSONL, JSON, CSV, TSV, Parquet, in any encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from llamafarm.data.clean import parts
from llamafarm.data.documents.decode import TextEncoding, mended
from llamafarm.data.documents.found import FoundRow
from llamafarm.data.documents.inputs import InputFile
from llamafarm.data.documents.labels import question_columns
from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.text_repair import repair_text
from llamafarm.data.formats import FORMATS, RowSpec, to_conversation
from llamafarm.data.json_reader import is_jsonl_inside, read_json, read_jsonl
from llamafarm.data.readers import open_source
from llamafarm.data.records import BadRow, Item, Record
from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.data.table_reader import csv_delimiter, read_delimited

UNUSABLE = "row that cannot be trained on"
ENDS_TRIMMED = "white space around texts removed"

# Their conversations do not say all that the row does.
_ANY_FORMAT = RowSpec()
_KEPT_AS_THEY_ARE = frozenset({"preference"})
_ONE_ANSWER = RowSpec("prompt_completion")
_, _REJECTED = FORMATS["preference"].keys


def file_rows(
    file: InputFile, encoding: TextEncoding | None, folder: Path, ledger: FileLedger
) -> Iterator[FoundRow]:
    """The rows of a file; what is none is noted. folder: where a file in another encoding than
    UTF-8 is rewritten.

    Raises DataError for a file that cannot be read as what its name says.
    """
    for item in _items(file, encoding, folder, ledger):
        if isinstance(item, BadRow):
            ledger.dropped(UNUSABLE, item.source.line, item.reason)
            continue
        row = _row(item, ledger)
        if row is not None:
            yield row


def _items(
    file: InputFile, encoding: TextEncoding | None, folder: Path, ledger: FileLedger
) -> Iterator[Item]:
    if encoding is None or encoding.is_plain_utf8:
        yield from open_source(file.path).items()
        return
    path = folder / "in_utf8"
    try:
        _rewrite(file, encoding, path, ledger)
        yield from _read_rewritten(file, path)
    finally:
        path.unlink(missing_ok=True)


def _rewrite(file: InputFile, encoding: TextEncoding, path: Path, ledger: FileLedger) -> None:
    """The file in UTF-8; readers of rows take nothing else."""
    with (
        file.open() as source,
        encoding.text_of(source) as text,
        path.open("w", encoding="utf-8", errors="replace", newline="") as target,
    ):
        for number, line in enumerate(text, start=1):
            target.write(mended(line, number, encoding, ledger))


def _read_rewritten(file: InputFile, path: Path) -> Iterator[Item]:
    match file.kind:
        case "JSON" if not is_jsonl_inside(path, file.name):
            return read_json(path, file.name)
        case "CSV":
            return read_delimited(path, file.name, csv_delimiter(path, file.name))
        case "TSV":
            return read_delimited(path, file.name, "\t")
    return read_jsonl(path, file.name)


def _row(record: Record, ledger: FileLedger) -> FoundRow | None:
    number = record.source.line
    spec = _ANY_FORMAT
    parsed = to_conversation(record, spec)
    if isinstance(parsed, BadRow) and (columns := _columns(record)) is not None:
        spec = RowSpec("qa", columns)
        parsed = to_conversation(record, spec)
    if isinstance(parsed, BadRow):
        ledger.dropped(UNUSABLE, number, parsed.reason)
        return None
    conversation, format_name = parsed
    repairs: set[str] = set()
    found = FoundRow(
        f"{format_name} row",
        number,
        tuple(_repaired_message(message, repairs) for message in conversation.messages),
        _repaired(conversation.text, repairs),
    )
    if format_name in _KEPT_AS_THEY_ARE or _says_more(conversation):
        # Their texts are written with the white space around them.
        repairs = set()
        fields = _repaired_fields(record.fields, repairs)
        found = replace(
            found,
            fields=fields,
            segments=tuple(_repaired(s.text, set()) for s in conversation.segments),
            beside=(*_beside(conversation), *_rejected(fields)),
        )
    else:
        used = _fields_of(format_name) | {*_lowered((spec.columns or {}).values())}
        if extra := _others(record, used, conversation):
            found = replace(found, extra=_repaired_fields(extra, repairs))
    for repair in sorted(repairs):
        ledger.changed(repair, number)
    return found


def _columns(record: Record) -> Mapping[str, str] | None:
    """Columns whose names only contain `question` and `answer`, as `Patient question`."""
    names = [str(name) for name in record.fields]
    found = question_columns(names)
    return None if found is None else {"question": names[found[0]], "answer": names[found[1]]}


def _others(
    record: Record, used: frozenset[str], conversation: Conversation
) -> Mapping[str, object]:
    """Fields that are no part of the format (labels to split by, ids, sources), and texts under a
    second name of a field, which the row does not say.
    """
    said = _said(conversation)

    def is_read(name: object, value: object) -> bool:
        if str(name).strip().lower() not in used:
            return False
        return not isinstance(value, str) or value.strip() in said

    return {
        str(name): value
        for name, value in record.fields.items()
        if value is not None and not is_read(name, value)
    }


def _said(conversation: Conversation) -> frozenset[str]:
    """All texts of a row, and those that its questions are made of."""
    texts = [conversation.text]
    for message in conversation.messages:
        texts += (message.content, message.instruction, message.input)
    return frozenset(text.strip() for text in texts)


def _beside(conversation: Conversation) -> Iterator[str]:
    """What it says beside its texts: tools, their calls, who speaks and what is trained."""
    silent = replace(
        conversation,
        messages=tuple(replace(message, content="") for message in conversation.messages),
        segments=tuple(replace(segment, text="") for segment in conversation.segments),
    )
    yield from _spoken(silent)
    yield from (f"trained {message.trained}" for message in conversation.messages)


def _rejected(fields: Mapping[str, object]) -> Iterator[str]:
    """What the rejected answers of a row of preferences say; training does not read them."""
    for name, value in fields.items():
        if name.strip().lower() not in _REJECTED or value is None:
            continue
        alone = Record(RowRef("", 0), {"prompt": "?", "completion": value})
        parsed = to_conversation(alone, _ONE_ANSWER)
        yield from (str(value),) if isinstance(parsed, BadRow) else _spoken(parsed[0])


def _spoken(conversation: Conversation) -> Iterator[str]:
    return (f"{kind} {said}" for kind, said in parts(conversation))


@cache
def _fields_of(format_name: str) -> frozenset[str]:
    return frozenset(FORMATS[format_name].fields)


def _lowered(names: Iterable[object]) -> Iterator[str]:
    return (str(name).strip().lower() for name in names)


def _says_more(conversation: Conversation) -> bool:
    return bool(conversation.segments or conversation.tools) or any(
        message.tool_calls or message.name or message.role == "tool" or not message.trained
        for message in conversation.messages
    )


def _repaired_message(message: Message, repairs: set[str]) -> Message:
    texts = (message.content, message.instruction, message.input)
    repaired = tuple(_repaired(text, repairs) for text in texts)
    if repaired == texts:
        return message
    content, instruction, given = repaired
    return replace(message, content=content, instruction=instruction, input=given)


def _repaired(text: str, repairs: set[str]) -> str:
    repaired, names = repair_text(text)
    repairs.update(names)
    if repaired[:1].isspace() or repaired[-1:].isspace():
        repairs.add(ENDS_TRIMMED)
        return repaired.strip()
    return repaired


def _repaired_fields(fields: Mapping[str, object], repairs: set[str]) -> Mapping[str, object]:
    return {str(key): _repaired_value(value, repairs) for key, value in fields.items()}


def _repaired_value(value: object, repairs: set[str]) -> object:
    if isinstance(value, str):
        repaired, names = repair_text(value)
        repairs.update(names)
        return repaired
    if isinstance(value, Mapping):
        return _repaired_fields(value, repairs)
    if isinstance(value, list):
        return [_repaired_value(inner, repairs) for inner in value]
    return value
