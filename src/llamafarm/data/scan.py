"""The first pass over a file: every fault, and of each good row what splitting needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from llamafarm.data.clean import Cleaner, blank_text, make_cleaner, without_blank_system
from llamafarm.data.formats import RowSpec, to_conversation
from llamafarm.data.quality.observer import QualityObserver
from llamafarm.data.readers import RowSource
from llamafarm.data.records import ROW_HINT, BadRow, FaultList, Item, Record
from llamafarm.data.report import MAX_NAMED, DropCount, DropKind, DroppedRow
from llamafarm.data.request import DataRequest
from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.data.survey import RowFacts, Surveyor, facts_of
from llamafarm.data.turns import only_last_answer
from llamafarm.errors import DataError, Problem


@dataclass(frozen=True, slots=True)
class Pipeline:
    """From items of a file to conversations: the same for both passes."""

    spec: RowSpec
    cleaner: Cleaner
    system_prompt: str | None = None
    mask_history: bool = False
    group_by: str | None = None
    stratify_by: str | None = None

    @classmethod
    def of(cls, request: DataRequest) -> Pipeline:
        """The pipeline that a request asks for; labels for a split are not looked for."""
        return cls(
            RowSpec(request.data_format, request.columns, request.roles, request.answers),
            make_cleaner(request.remove_patterns),
            request.system_prompt,
            request.mask_history,
        )

    def labelled(self, request: DataRequest) -> Pipeline:
        """The same for rows that are split: each has to have the labels of the request."""
        return replace(self, group_by=request.group_by, stratify_by=request.stratify_by)

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
                reason = f"{blank} is empty after remove_patterns"
                return DroppedRow(item.source, reason, "emptied by remove_patterns")
        if self.mask_history:
            conversation = only_last_answer(conversation)
        labels = [item.fields.get(name) for name in (self.group_by, self.stratify_by) if name]
        if None in labels:
            return self._unlabelled(item.source)
        group = str(item.fields.get(self.group_by)) if self.group_by else ""
        stratum = str(item.fields.get(self.stratify_by)) if self.stratify_by else ""
        return GoodRow(conversation, format_name, group, stratum)

    def finished(self, conversation: Conversation) -> Conversation:
        """As it goes to the model: with the system prompt, unless the row has one or is a text."""
        if not self.system_prompt or not conversation.messages:
            return conversation
        if any(message.role == "system" for message in conversation.messages):
            return conversation
        messages = (Message("system", self.system_prompt), *conversation.messages)
        return replace(conversation, messages=messages)

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
class Dropped:
    """Rows that were left out: the first MAX_NAMED by name, all of them counted by kind."""

    named: list[DroppedRow] = field(default_factory=list)
    counts: Counter[DropKind] = field(default_factory=Counter)

    def add(self, row: DroppedRow) -> None:
        """One row."""
        self.counts[row.kind] += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(row)

    def add_bad(self, row: BadRow) -> None:
        """A row that cannot be used, and that the request leaves out."""
        kind: DropKind = "empty" if row.empty else "unreadable"
        self.add(DroppedRow(row.source, row.reason, kind))

    def join(self, other: Dropped) -> None:
        """All rows of another list."""
        self.counts += other.counts
        self.named += other.named[: MAX_NAMED - len(self.named)]

    def by_kind(self) -> tuple[DropCount, ...]:
        """The counts, the most frequent first."""
        return tuple(DropCount(kind, rows) for kind, rows in self.counts.most_common() if rows)


@dataclass(slots=True)
class Scan:
    """What is known of one file after the first pass. records: items that stood in it; rows: those
    that can be used, which are rows `first` and following of the survey.
    """

    source: RowSource
    number: int
    first: int
    records: int = 0
    rows: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    dropped: Dropped = field(default_factory=Dropped)


def scan(
    source: RowSource,
    number: int,
    pipeline: Pipeline,
    request: DataRequest,
    surveyor: Surveyor,
    quality: QualityObserver,
    *,
    side: str,
    limit: int | None = None,
    on_record: Callable[[Item], None] | None = None,
) -> Scan:
    """Read a file once. number: of the file in the survey; limit: stop after this many good rows,
    where duplicates are to go after this many different ones.

    Raises DataError with all faults of the file unless the request skips bad rows, and when no row
    is left.
    """
    found = Scan(source, number, len(surveyor))
    faults = FaultList(source.name)
    # Filled only up to the limit.
    different: set[int] | None = set() if limit is not None and request.remove_duplicates else None
    for position, item in enumerate(source.items()):
        found.records += 1
        row = pipeline.read(item)
        if isinstance(row, BadRow):
            if request.skip_bad_rows or (request.filter_empty and row.empty):
                found.dropped.add_bad(row)
            else:
                faults.add(row)
        elif isinstance(row, DroppedRow):
            found.dropped.add(row)
        elif not faults.count:
            facts = facts_of(row.conversation)
            _keep(found, row, facts, position, surveyor, quality, side)
            if different is not None:
                different.add(facts.content)
        if on_record is not None:
            on_record(item)
        enough = found.rows if different is None else len(different)
        if limit is not None and enough >= limit:
            break
    faults.raise_if_any()
    if not found.rows:
        raise no_rows(source.name, found.dropped)
    return found


def _keep(
    found: Scan,
    row: GoodRow,
    facts: RowFacts,
    position: int,
    surveyor: Surveyor,
    quality: QualityObserver,
    side: str,
) -> None:
    surveyor.add(
        facts,
        source=found.number,
        position=position,
        line=row.conversation.source.line,
        group=row.group,
        stratum=row.stratum,
    )
    quality.see(row.conversation, side)
    found.rows += 1
    found.formats[row.format_name] += 1


def no_rows(name: str, dropped: Dropped) -> DataError:
    """The fault of a file of which no row is left; of each of the first its reason."""
    if not dropped.counts:
        return DataError(f"{name} has no rows", hint=ROW_HINT)
    reasons = [Problem(row.reason, where=str(row.source)) for row in dropped.named[:5]]
    total = dropped.counts.total()
    return DataError(f"{name}: no row is left, all {total:,} were dropped", reasons)


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The rows of one file that are used. positions: among all its items, ascending; sides: index
    into `SIDES`; repeats: how often each is written.
    """

    positions: npt.NDArray[np.uint32]
    sides: npt.NDArray[np.int8]
    repeats: npt.NDArray[np.int32]

    @property
    def rows(self) -> int:
        """Rows that will be written, repeated ones as often as they are."""
        return int(self.repeats.sum())


SIDES = ("train", "eval", "test")


def planned_rows(
    source: RowSource, pipeline: Pipeline, plan: FilePlan
) -> Iterator[tuple[str, Conversation]]:
    """The second pass: the planned rows with their sides, in the file's order."""
    wanted = zip(plan.positions.data, plan.sides.data, plan.repeats.data, strict=True)
    position, side, repeats = next(wanted, (-1, 0, 0))
    for number, item in enumerate(source.items()):
        if number != position:
            continue
        row = pipeline.read(item) if isinstance(item, Record) and repeats else None
        if isinstance(row, GoodRow):
            for _ in range(repeats):
                yield SIDES[side], pipeline.finished(row.conversation)
        position, side, repeats = next(wanted, (-1, 0, 0))
