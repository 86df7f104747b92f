"""The search for near duplicates: rows that have most of their word 3-shingles in common.

Candidates come from MinHash signatures (`signatures`, `candidates`); the similarity of each is then
computed from the sets themselves (`pairs`). Time and memory grow linearly with the rows: about 70
bytes a row, 20 bytes a pair found, and buffers of a fixed size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llamafarm.data.near.arrays import Mask, Rows, Similarity
from llamafarm.data.near.candidates import Field, candidates
from llamafarm.data.near.components import Components
from llamafarm.data.near.contained import contained_pairs
from llamafarm.data.near.copies import Copies
from llamafarm.data.near.found import FoundPairs
from llamafarm.data.near.pairs import RowPairs, jaccard, no_pairs, shared_counts
from llamafarm.data.near.shingles import ShingleStore
from llamafarm.data.near.signatures import BANDS, BandColumns, set_digests

__all__ = ["NEAR_SIMILARITY", "RowPairs", "contained_pairs", "near_pairs"]

NEAR_SIMILARITY = 0.7
# Two rows with so many pairs each are not compared when they are connected.
ENOUGH_PAIRS = 16


def near_pairs(
    store: ShingleStore,
    rows: Rows,
    *,
    threshold: float = NEAR_SIMILARITY,
    progress: Callable[[int, int], None] | None = None,
) -> RowPairs:
    """Pairs of rows whose sets of shingles have a Jaccard similarity of at least the threshold.

    rows: numbers in the store, in any order; rows without shingles are in no pair. first < second,
    ordered by both; similarity: exact. Of pairs at 0.7, 99 % are found, at 0.8 all but one in
    20,000; the bands are made for thresholds from 0.7 on, below it fewer are found. progress: told
    (done, all) in steps of the work.

    Not every pair of a large group is named: two rows that both have 16 pairs or more, and are
    connected through them, are not compared. Copies (equal sets) are named in all combinations up
    to 64 pairs, beyond that each with the first. Which rows are connected is the same either way.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie between 0 and 1 (got {threshold:g})")
    rows = np.unique(np.asarray(rows, dtype=np.int64))
    rows = rows[store.lengths(rows) > 0]
    if len(rows) < 2:
        return no_pairs()
    copies = Copies(rows, set_digests(store, rows))
    search = Search(Field(store, copies.firsts, copies.digests), threshold)
    search.run(progress or _quiet)
    return copies.spread(search.pairs())


def _quiet(_done: int, _all: int) -> None:
    pass


class Search:
    """One search among rows whose sets all differ. comparisons: pairs of sets compared so far."""

    def __init__(self, field: Field, threshold: float) -> None:
        count = len(field.rows)
        self.comparisons = 0
        self._field = field
        self._threshold = threshold
        self._sizes = field.store.lengths(field.rows)
        self._found = FoundPairs(count)
        self._pairs_of = np.zeros(count, dtype=np.int32)
        self._components = Components(count)

    def run(self, progress: Callable[[int, int], None]) -> None:
        """All bands. progress: signatures count for half of the work."""
        field, count = self._field, len(self._field.rows)
        with BandColumns(field.store.folder, count) as columns:
            columns.fill(field.store, field.rows, lambda done: progress(done, 2 * count))
            for band in range(BANDS):
                for one, other in candidates(field, columns.column(band), band):
                    # In the order of their rows, so that these are read side by side.
                    order = np.argsort(other)
                    one, other = one[order], other[order]
                    self._compare(np.minimum(one, other), np.maximum(one, other))
                progress(count + count * (band + 1) // BANDS, 2 * count)

    def pairs(self) -> RowPairs:
        """What was found, as indices into the field."""
        return self._found.pairs()

    def _compare(self, first: Rows, second: Rows) -> None:
        """first < second; a pair that was found before is passed over."""
        first, second = _only(self._possible(first, second), first, second)
        first, second = _only(self._unsettled(first, second), first, second)
        first, second = _only(~self._found.holds(first, second), first, second)
        if not len(first):
            return
        self.comparisons += len(first)
        rows = self._field.rows
        shared = shared_counts(self._field.store, rows[first], rows[second])
        similarity = jaccard(shared, self._sizes[first], self._sizes[second])
        near = similarity >= self._threshold
        if near.any():
            self._keep(first[near], second[near], similarity[near].astype(np.float32))

    def _possible(self, first: Rows, second: Rows) -> Mask:
        """No similarity is larger than the smaller size over the larger."""
        one, other = self._sizes[first], self._sizes[second]
        possible: Mask = np.minimum(one, other) / np.maximum(one, other) >= self._threshold
        return possible

    def _unsettled(self, first: Rows, second: Rows) -> Mask:
        """Pairs that would tell something new, if they were not found before."""
        fewer = np.minimum(self._pairs_of[first], self._pairs_of[second])
        settled: Mask = fewer >= ENOUGH_PAIRS
        if settled.any():
            settled[settled] = self._components.connected(first[settled], second[settled])
        return ~settled

    def _keep(self, first: Rows, second: Rows, similarity: Similarity) -> None:
        """Pairs that were not found before, each once."""
        self._found.add(first, second, similarity)
        np.add.at(self._pairs_of, first, 1)
        np.add.at(self._pairs_of, second, 1)
        self._components.join(first, second)


def _only(wanted: Mask, first: Rows, second: Rows) -> tuple[Rows, Rows]:
    return (first, second) if wanted.all() else (first[wanted], second[wanted])
