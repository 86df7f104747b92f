"""The first pass over a file: every fault, and of each good row what splitting needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from llamafarm.data.clean import (
    Cleaner,
    blank_text,
    content_key,
    make_cleaner,
    without_blank_system,
)
from llamafarm.data.formats import RowSpec, to_conversation
from llamafarm.data.readers import RowSource
from llamafarm.data.records import ROW_HINT, BadRow, FaultList, Item
from llamafarm.data.report import DroppedRow
from llamafarm.data.request import DataRequest
from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.errors import DataError, Problem


@dataclass(frozen=True, slots=True)
class Pipeline:
    """From items of a file to conversations: the same for both passes."""

    spec: RowSpec
    cleaner: Cleaner
    group_by: str | None = None
    stratify_by: str | None = None

    @classmethod
    def of(cls, request: DataRequest) -> Pipeline:
        """The pipeline that a request asks for."""
        spec = RowSpec(request.data_format, request.columns)
        cleaner = make_cleaner(request.remove_patterns)
        return cls(spec, cleaner, request.group_by, request.stratify_by)

    def read(self, item: Item) -> GoodRow | DroppedRow | BadRow:
        """One item as a row."""
        if isinstance(item, BadRow):
            return item
        parsed = to_conversation(item, self.spec)
        if isinstance(parsed, BadRow):
            return parsed
        conversation, format_name = parsed
        if self.cleaner.patterns:
            conversation = without_blank_system(self.cleaner.clean(conversation))
            if blank := blank_text(conversation):
                return DroppedRow(item.source, f"{blank} is empty after remove_patterns")
        labels = [item.fields.get(name) for name in (self.group_by, self.stratify_by) if name]
        if None in labels:
            return self._unlabelled(item.source)
        group = str(item.fields.get(self.group_by)) if self.group_by else ""
        stratum = str(item.fields.get(self.stratify_by)) if self.stratify_by else ""
        return GoodRow(conversation, format_name, group, stratum)

    def _unlabelled(self, source: RowRef) -> BadRow:
        names = " and ".join(name for name in (self.group_by, self.stratify_by) if name)
        message = f"the row has no {names}, by which the split is to be made"
        hint = "give every row that field, or leave out dataset.group_by and dataset.stratify_by"
        return BadRow(source, (Problem(message, where=str(source), hint=hint),))


@dataclass(frozen=True, slots=True)
class GoodRow:
    """A row that can be trained on. group, stratum: for the split; empty when not asked for."""

    conversation: Conversation
    format_name: str
    group: str = ""
    stratum: str = ""


@dataclass(slots=True)
class Scan:
    """What is known of one file after the first pass. Lists run over the kept rows, in the file's
    order.

    positions: number of the row among all items of the file, from 0; keys: see clean.content_key.
    """

    source: RowSource
    positions: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    strata: list[str] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    dropped: list[DroppedRow] = field(default_factory=list)
    duplicates: int = 0

    def __len__(self) -> int:
        return len(self.positions)


def scan(source: RowSource, pipeline: Pipeline, request: DataRequest, limit: int | None) -> Scan:
    """Read a file once. limit: stop after this many good rows.

    Raises DataError with all faults of the file unless the request skips bad rows, and when no row
    is left.
    """
    found = Scan(source)
    faults = FaultList(source.name)
    first_lines: dict[bytes, int] = {}
    for position, item in enumerate(source.items()):
        row = pipeline.read(item)
        if isinstance(row, BadRow):
            if request.skip_bad_rows or (request.filter_empty and row.empty):
                found.dropped.append(DroppedRow(row.source, row.reason))
            else:
                faults.add(row)
        elif isinstance(row, DroppedRow):
            found.dropped.append(row)
        else:
            _keep(found, row, position, first_lines, request.remove_duplicates)
        if limit is not None and len(found) >= limit:
            break
    faults.raise_if_any()
    if not found.positions:
        raise _no_rows(found)
    return found


def _keep(
    found: Scan, row: GoodRow, position: int, first_lines: dict[bytes, int], drop_duplicates: bool
) -> None:
    key = content_key(row.conversation)
    origin = row.conversation.source
    first = first_lines.setdefault(key, origin.line)
    if first != origin.line:
        if drop_duplicates:
            found.dropped.append(DroppedRow(origin, f"says the same as line {first}"))
            return
        found.duplicates += 1
    found.positions.append(position)
    found.lines.append(origin.line)
    found.keys.append(key)
    found.groups.append(row.group)
    found.strata.append(row.stratum)
    found.formats[row.format_name] += 1


def _no_rows(found: Scan) -> DataError:
    name = found.source.name
    if not found.dropped:
        return DataError(f"{name} has no rows", hint=ROW_HINT)
    reasons = [Problem(row.reason, where=str(row.source)) for row in found.dropped[:5]]
    return DataError(f"{name}: no row is left, all {len(found.dropped):,} were dropped", reasons)


def conversations(
    found: Scan, pipeline: Pipeline, sides: Mapping[int, str]
) -> Iterator[tuple[str, Conversation]]:
    """The second pass: the rows at these positions with their sides, in the file's order."""
    for position, item in enumerate(found.source.items()):
        side = sides.get(position)
        if side is None:
            continue
        row = pipeline.read(item)
        if isinstance(row, GoodRow):
            yield side, row.conversation


def with_system(conversation: Conversation, system_prompt: str | None) -> Conversation:
    """Put the system prompt first, unless the row has one, or is a plain text."""
    if not system_prompt or not conversation.messages:
        return conversation
    if any(message.role == "system" for message in conversation.messages):
        return conversation
    messages = (Message("system", system_prompt), *conversation.messages)
    return replace(conversation, messages=messages)
