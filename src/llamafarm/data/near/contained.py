"""Rows that are contained in longer ones: an evaluation question inside a training document.

Similarity does not find these, because the longer row has so much else. Every inner row is looked
up by its rarest shingles instead. Of its n shingles m = n - ceil(0.95 n) may be missing in the
outer row; so of any m + 4 of them at least 4 occur there, and no container is overlooked.

That holds for shingles that at most 256 outer rows have. Of more common ones only the rarest is
looked up, in the first 256 rows: a row of a template, which has few rare shingles, is overlooked
where its container lacks all of these. How many rows have a shingle is counted in 2^24 places; two
shingles in one place (32 million different ones are two a place) count as one that is less rare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamafarm.data.near.arrays import Counts, Mask, Rows, Shingles, expand, slices
from llamafarm.data.near.pairs import RowPairs, in_order, no_pairs, shared_counts
from llamafarm.data.near.shingles import ShingleStore

CONTAINED_PERCENT = 95
# Shorter rows are contained in others by chance.
MIN_SHINGLES = 8
# Outer rows that have a shingle, and outer rows that an inner row is compared with, at most.
LOOKED_UP_ROWS = 256
COMPARED_ROWS = 64

_HITS = 4
_READ_SHINGLES = 1 << 18
_INNER_SHINGLES = 1 << 20
_PROBES_AT_ONCE = 1 << 21
_CANDIDATES_AT_ONCE = 1 << 20
_SLOT_BITS = 24


def contained_pairs(
    store: ShingleStore,
    inner: Rows,
    outer: Rows,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> RowPairs:
    """Rows of `inner`, of at least 8 shingles, of which at least 95 % occur in one row of `outer`.

    first: inner row, second: outer row, similarity: the share; ordered by both. inner, outer: in
    any order; a row is not contained in itself. At most 64 containers are named for a row.
    progress: told (done, all) in steps of the work. The outer rows are read once, and once more for
    every 2 million probes (some 170,000 inner rows of 150 words); memory does not depend on the
    number of either.
    """
    inner = np.unique(np.asarray(inner, dtype=np.int64))
    outer = np.unique(np.asarray(outer, dtype=np.int64))
    inner = inner[store.lengths(inner) >= MIN_SHINGLES]
    outer = outer[store.lengths(outer) >= MIN_SHINGLES]
    if not len(inner) or not len(outer):
        return no_pairs()
    parts = list(slices(_may_be_missing(store.lengths(inner)) + _HITS, _PROBES_AT_ONCE))
    rows = _OuterRows(store, outer, passes=1 + len(parts), progress=progress)
    common = _frequencies(rows)
    return in_order(_Lookup(store, inner[part], rows, common).pairs() for part in parts)


class _OuterRows:
    """The rows to be searched, read from the first to the last as often as they are asked for."""

    def __init__(
        self,
        store: ShingleStore,
        rows: Rows,
        passes: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._store, self._rows, self._progress = store, rows, progress
        self._done, self._all = 0, passes * len(rows)

    def read(self) -> Iterator[tuple[Rows, Counts, Shingles]]:
        """Numbers of rows, how many shingles each has, and these."""
        for part in slices(self._store.lengths(self._rows), _READ_SHINGLES):
            shingles, lengths = self._store.read(self._rows[part])
            yield self._rows[part], lengths, shingles
            self._done += len(lengths)
            if self._progress is not None:
                self._progress(self._done, self._all)


def _slot(shingles: Shingles) -> Shingles:
    return shingles >> np.uint32(32 - _SLOT_BITS)


def _frequencies(outer: _OuterRows) -> npt.NDArray[np.uint32]:
    """How many outer rows have a shingle of each slot."""
    found = np.zeros(1 << _SLOT_BITS, dtype=np.uint32)
    for _, _, shingles in outer.read():
        np.add.at(found, _slot(shingles), np.uint32(1))
    return found


def _may_be_missing(sizes: Counts) -> Counts:
    """How many shingles of rows of these sizes a container may lack."""
    return sizes - -(-sizes * CONTAINED_PERCENT // 100)


@dataclass(frozen=True, slots=True)
class _Known:
    """A set of shingles, ascending, to be asked for the place of each."""

    shingles: Shingles
    slots: Mask

    @classmethod
    def of(cls, shingles: Shingles) -> _Known:
        slots = np.zeros(1 << _SLOT_BITS, dtype=np.bool_)
        slots[_slot(shingles)] = True
        return cls(shingles, slots)

    def look_up(self, shingles: Shingles) -> tuple[Rows, Rows]:
        """Which of these are known, and their places among the known ones."""
        position = np.flatnonzero(self.slots[_slot(shingles)])
        asked = shingles[position]
        place = np.minimum(np.searchsorted(self.shingles, asked), len(self.shingles) - 1)
        equal = self.shingles[place] == asked
        return position[equal], place[equal]


@dataclass(frozen=True, slots=True)
class _Probes:
    """The shingles by which inner rows are looked up.

    begins, counts: which of `rows` have each shingle, indices of inner rows; hits: how many of its
    probes a container of each inner row has at least.
    """

    known: _Known
    begins: Rows
    counts: Counts
    rows: Rows
    hits: Counts


class _Lookup:
    """Inner rows, as many as are held at once, among all outer rows. frequencies: by slot."""

    def __init__(
        self,
        store: ShingleStore,
        inner: Rows,
        outer: _OuterRows,
        frequencies: npt.NDArray[np.uint32],
    ) -> None:
        self._store, self._inner, self._outer = store, inner, outer
        self._frequencies = frequencies
        self._sizes = store.lengths(inner)
        self._missing = _may_be_missing(self._sizes)
        self._required = self._sizes - self._missing
        self._budget = np.full(len(inner), COMPARED_ROWS)

    def pairs(self) -> RowPairs:
        """Every container, within the limits."""
        found = [self._compare(*some) for some in self._candidates(self._probes())]
        one = np.concatenate([first for first, _, _ in found] or [np.empty(0, np.int64)])
        other = np.concatenate([second for _, second, _ in found] or [np.empty(0, np.int64)])
        shared = np.concatenate([count for _, _, count in found] or [np.empty(0, np.int64)])
        share = (shared / self._sizes[one]).astype(np.float32)
        return RowPairs(self._inner[one], other, share)

    def _probes(self) -> _Probes:
        chosen = [self._chosen(part) for part in slices(self._sizes, _INNER_SHINGLES)]
        shingles = np.concatenate([found for found, _, _ in chosen])
        rows = np.concatenate([rows for _, rows, _ in chosen])
        order = np.argsort(shingles, kind="stable")
        values, begins, counts = np.unique(shingles[order], return_index=True, return_counts=True)
        hits = np.concatenate([hits for _, _, hits in chosen])
        return _Probes(_Known.of(values), begins, counts, rows[order], hits)

    def _chosen(self, part: slice) -> tuple[Shingles, Rows, Counts]:
        """Shingles of some inner rows with their rows; and how many of its own a container of each
        row has at least.
        """
        sizes, missing = self._sizes[part], self._missing[part]
        shingles, _ = self._store.read(self._inner[part])
        row = np.repeat(np.arange(len(sizes)), sizes)
        common = self._frequencies[_slot(shingles)]
        order = np.lexsort((shingles, common, row))
        place = expand(np.zeros_like(sizes), sizes)
        chosen = (place < (missing + _HITS)[row]) & (common[order] <= LOOKED_UP_ROWS)
        hits = np.bincount(row[chosen], minlength=len(sizes)) - missing
        chosen |= place == 0
        return shingles[order[chosen]], row[chosen] + part.start, np.maximum(hits, 1)

    def _candidates(self, probes: _Probes) -> Iterator[tuple[Rows, Rows]]:
        """Indices of inner rows, and outer rows that have enough of their probes."""
        seen = np.zeros(len(probes.begins), dtype=np.int64)
        for outer, lengths, shingles in self._outer.read():
            position, probe = probes.known.look_up(shingles)
            place = np.repeat(np.arange(len(outer)), lengths)[position]
            early = seen[probe] + _ranks(probe) < LOOKED_UP_ROWS
            np.add.at(seen, probe, 1)
            place, probe = place[early], probe[early]
            weights = np.bincount(place, probes.counts[probe], len(outer)).astype(np.int64)
            edges = np.append(0, np.cumsum(np.bincount(place, minlength=len(outer))))
            for part in slices(weights, _CANDIDATES_AT_ONCE):
                hits = slice(edges[part.start], edges[part.stop])
                rows, places = self._enough(probes, place[hits], probe[hits])
                yield rows, outer[places]

    def _enough(self, probes: _Probes, place: Rows, probe: Rows) -> tuple[Rows, Rows]:
        """place: of an outer row, probe: that it has."""
        counts = probes.counts[probe]
        rows = probes.rows[expand(probes.begins[probe], counts)]
        keys = np.repeat(place, counts) * len(self._inner) + rows
        keys, hits = np.unique(keys, return_counts=True)
        rows = keys % len(self._inner)
        enough = hits >= probes.hits[rows]
        return rows[enough], keys[enough] // len(self._inner)

    def _compare(self, rows: Rows, outer: Rows) -> tuple[Rows, Rows, Counts]:
        """Those pairs that are contained, with their shared shingles."""
        wanted = self._inner[rows] != outer
        wanted &= self._store.lengths(outer) >= self._required[rows]
        rows, outer = rows[wanted], outer[wanted]
        affordable = _ranks(rows) < self._budget[rows]
        rows, outer = rows[affordable], outer[affordable]
        np.subtract.at(self._budget, rows, 1)
        shared = shared_counts(self._store, self._inner[rows], outer)
        inside = shared >= self._required[rows]
        return rows[inside], outer[inside], shared[inside]


def _ranks(values: Rows) -> Rows:
    """How many equal values stand before each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(values) else order
    lengths = np.diff(begins, append=len(values))
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(values)) - np.repeat(begins, lengths)
    return ranks
