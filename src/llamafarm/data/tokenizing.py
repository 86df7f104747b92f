"""The second pass over the files: rows into the cache entry, batch by batch, in the order of the
files.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from llamafarm.data.cache import SideWriter, arrow_path
from llamafarm.data.records import FaultList
from llamafarm.data.report import DroppedRow, TruncatedRow
from llamafarm.data.rows import Conversation
from llamafarm.data.token_row import BatchResult, RowTokenizer, TokenCounts

BATCH_ROWS = 1000
Progress = Callable[[int, int], None]
SidedRow = tuple[str, Conversation]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(slots=True)
class TokenisedFile:
    """What tokenising one file gave, besides the rows on disk."""

    counts: TokenCounts = field(default_factory=TokenCounts)
    truncated: list[TruncatedRow] = field(default_factory=list)
    dropped: list[DroppedRow] = field(default_factory=list)


class SideWriters:
    """The Arrow files of an entry while they are written."""

    def __init__(self, entry: Path, sides: Sequence[str]) -> None:
        self._writers = {side: SideWriter(arrow_path(entry, side)) for side in sides}

    def __getitem__(self, side: str) -> SideWriter:
        return self._writers[side]

    def __enter__(self) -> SideWriters:
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def finish(self) -> dict[str, str]:
        """Complete all files; their fingerprints by side."""
        for writer in self._writers.values():
            writer.finish()
        return {side: writer.fingerprint for side, writer in self._writers.items()}

    def row_counts(self) -> Mapping[str, int]:
        """Rows written so far by side."""
        return {side: writer.rows for side, writer in self._writers.items()}


def tokenise(
    name: str,
    rows: Iterable[SidedRow],
    tokenizer: RowTokenizer,
    writers: SideWriters,
    *,
    num_workers: int,
    skip_bad_rows: bool,
    on_batch: Callable[[int], None],
) -> TokenisedFile:
    """Tokenise rows of one file and write each to its side. on_batch is told the rows of each batch
    done.

    num_workers: batches in work at a time (threads: the tokenizer works outside Python's lock); the
    result does not depend on it. Raises DataError with the rows on which the chat template fails,
    unless bad rows are skipped.
    """
    done = TokenisedFile()
    faults = FaultList(name)

    def encode(batch: Sequence[SidedRow]) -> tuple[Sequence[SidedRow], BatchResult]:
        return batch, tokenizer.encode([conversation for _, conversation in batch])

    for batch, result in ordered_map(encode, _batches(rows), num_workers):
        for bad in result.bad:
            if skip_bad_rows:
                done.dropped.append(DroppedRow(bad.source, bad.reason))
            else:
                faults.add(bad)
        done.counts.add(result.counts)
        done.dropped += result.dropped
        done.truncated += [row.truncated for _, row in result.rows if row.truncated]
        for side in dict.fromkeys(side for side, _ in batch):
            writers[side].write([row for i, row in result.rows if batch[i][0] == side])
        on_batch(len(batch))
    faults.raise_if_any()
    return done


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
