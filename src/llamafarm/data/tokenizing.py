"""The second pass over the files: rows into the cache entry, batch by batch, in the order of the
files.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from llamafarm.data.parts import PartRecord, Parts, PartWriter
from llamafarm.data.records import FaultList
from llamafarm.data.report import MAX_NAMED, DropKind, DroppedRow, TruncatedRow
from llamafarm.data.rows import Conversation
from llamafarm.data.scan import Dropped
from llamafarm.data.token_row import BatchResult, RowTokenizer, TokenCounts

BATCH_ROWS = 1000
# A part is some seconds of work: what is lost when the work is cut off.
PART_BATCHES = 20
SidedRow = tuple[str, Conversation]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(slots=True)
class Tokenised:
    """What tokenising gave, besides the rows on disk. truncated: at most MAX_NAMED, rows_truncated
    counts all.
    """

    counts: TokenCounts = field(default_factory=TokenCounts)
    rows: dict[str, int] = field(default_factory=dict)
    truncated: list[TruncatedRow] = field(default_factory=list)
    rows_truncated: int = 0
    trained_tokens_cut: int = 0
    dropped: Dropped = field(default_factory=Dropped)

    def take(self, part: PartRecord) -> None:
        """Add what a part holds."""
        self.counts.add(part.counts)
        for side, rows in part.rows.items():
            self.rows[side] = self.rows.get(side, 0) + rows
        self.truncated += part.truncated[: MAX_NAMED - len(self.truncated)]
        self.rows_truncated += part.rows_truncated
        self.trained_tokens_cut += part.trained_tokens_cut
        self.dropped.join(Dropped(list(part.dropped), Counter(part.rows_dropped)))


def tokenise(
    name: str,
    rows: Iterable[SidedRow],
    tokenizer: RowTokenizer,
    parts: Parts,
    *,
    num_workers: int,
    skip_bad_rows: bool,
    on_rows: Callable[[int], None],
) -> Tokenised:
    """Tokenise rows and write each to its side, after those that finished parts hold already.

    name: of the dataset, for messages;
    num_workers: batches in work at a time (threads: the tokenizer works outside Python's lock); the
    result does not depend on it. on_rows is told how many planned rows are done. Raises DataError
    with the rows on which the chat template fails, unless bad rows are skipped.
    """
    done = Tokenised()
    for finished in parts.done:
        done.take(finished)
    faults = FaultList(name)

    def encode(batch: Sequence[SidedRow]) -> tuple[Sequence[SidedRow], BatchResult]:
        return batch, tokenizer.encode([conversation for _, conversation in batch])

    read = parts.rows_read
    left = itertools.islice(rows, read, None)
    results = ordered_map(encode, _batches(left), num_workers)
    while pieces := itertools.islice(results, PART_BATCHES):
        with parts.writer() as writer:
            part = _Part()
            for batch, result in pieces:
                part.take(batch, result, writer, faults, skip_bad_rows)
                on_rows(read + part.rows_read)
            if not part.rows_read:
                break
            if not faults.count:
                parts.add(part.record(writer))
                done.take(parts.done[-1])
            read += part.rows_read
    faults.raise_if_any()
    return done


@dataclass(slots=True)
class _Part:
    """One part in the making."""

    rows_read: int = 0
    counts: TokenCounts = field(default_factory=TokenCounts)
    truncated: list[TruncatedRow] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)

    def take(
        self,
        batch: Sequence[SidedRow],
        result: BatchResult,
        writer: PartWriter,
        faults: FaultList,
        skip_bad_rows: bool,
    ) -> None:
        self.rows_read += len(batch)
        for bad in result.bad:
            if skip_bad_rows:
                kind: DropKind = "refused by the chat template"
                self.dropped.add(DroppedRow(bad.source, bad.reason, kind))
            else:
                faults.add(bad)
        # A weight may repeat a row: it is left out once.
        for row in dict.fromkeys(result.dropped):
            self.dropped.add(row)
        self.counts.add(result.counts)
        self.truncated += [row.truncated for _, row in result.rows if row.truncated]
        for side in dict.fromkeys(side for side, _ in batch):
            writer.write(side, [row for i, row in result.rows if batch[i][0] == side])

    def record(self, writer: PartWriter) -> PartRecord:
        rows, files = writer.finish()
        return PartRecord(
            rows_read=self.rows_read,
            rows=rows,
            files=files,
            counts=self.counts,
            truncated=tuple(self.truncated[:MAX_NAMED]),
            rows_truncated=len(self.truncated),
            trained_tokens_cut=sum(row.trained_tokens_cut for row in self.truncated),
            dropped=tuple(self.dropped.named),
            rows_dropped=dict(self.dropped.counts),
        )


def _batches(rows: Iterable[SidedRow]) -> Iterator[Sequence[SidedRow]]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, BATCH_ROWS)):
        yield batch


def ordered_map(
    function: Callable[[_In], _Out], items: Iterable[_In], workers: int
) -> Iterator[_Out]:
    """map() with several threads: results in order, and never more than 2 * workers items taken
    ahead.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
