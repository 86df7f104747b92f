"""Pairs of rows, and how much two rows have in common: counted exactly, many pairs at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamafarm.data.near.arrays import HALF, Counts, Rows, expand, slices
from llamafarm.data.near.shingles import ShingleStore

# Shingles of both sides that are compared at once: about 50 MB while they are.
_SHINGLES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class RowPairs:
    """Pairs of rows, each once. similarity: 0 to 1, of which kind says the function that found
    them.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def ascending(self) -> RowPairs:
        """The smaller row of each pair first."""
        first, second = self.first, self.second
        return RowPairs(np.minimum(first, second), np.maximum(first, second), self.similarity)


def in_order(parts: Iterable[RowPairs]) -> RowPairs:
    """All pairs together, ordered by both rows."""
    columns = zip(*((p.first, p.second, p.similarity) for p in parts), strict=True)
    first, second, similarity = (np.concatenate(column) for column in columns)
    order = np.lexsort((second, first))
    return RowPairs(first[order], second[order], similarity[order])


def no_pairs() -> RowPairs:
    """None."""
    return RowPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def shared_counts(store: ShingleStore, first: Rows, second: Rows) -> Counts:
    """The number of shingles that both rows of each pair have."""
    shared = np.empty(len(first), dtype=np.int64)
    sizes = store.lengths(first) + store.lengths(second)
    for part in slices(sizes, _SHINGLES_AT_ONCE):
        shared[part] = _shared(store, first[part], second[part])
    return shared


def _shared(store: ShingleStore, first: Rows, second: Rows) -> Counts:
    """A shingle that both rows have stands twice among the sorted (pair, shingle) of both.

    The keys of each side are in order already, and a stable sort merges them in one pass.
    """
    rows, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    shingles, lengths = store.read(rows)
    begins = np.cumsum(lengths) - lengths
    pair = np.tile(np.arange(len(first), dtype=np.uint64), 2)
    keys = np.repeat(pair << HALF, lengths[place])
    keys |= shingles[expand(begins[place], lengths[place])]
    keys.sort(kind="stable")
    twice = keys[:-1][keys[1:] == keys[:-1]]
    return np.bincount((twice >> HALF).astype(np.int64), minlength=len(first))


def jaccard(shared: Counts, first_sizes: Counts, second_sizes: Counts) -> npt.NDArray[np.float64]:
    """Shared shingles over all shingles of both rows: |A and B| / |A or B|. Sizes of at least 1."""
    return shared / (first_sizes + second_sizes - shared)
