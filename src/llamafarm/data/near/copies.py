"""Rows with equal sets of shingles: one of them is searched with, and stands for all."""

from __future__ import annotations

import numpy as np

from llamafarm.data.near.arrays import Counts, Hashes, Mask, Rows, expand
from llamafarm.data.near.pairs import RowPairs, in_order

# So many pairs of copies are all named; of more, each copy with the first.
NAMED_PAIRS = 64


class Copies:
    """Groups of rows with equal digests.

    firsts: the first row of each group, ascending; digests: of the groups, in the same order.
    """

    def __init__(self, rows: Rows, digests: Hashes) -> None:
        """rows: ascending."""
        _, first, group, sizes = np.unique(
            digests, return_index=True, return_inverse=True, return_counts=True
        )
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self.firsts: Rows = rows[first[order]]
        self.digests: Hashes = digests[first[order]]
        self._sizes: Counts = sizes[order]
        self._begins = np.cumsum(self._sizes) - self._sizes
        self._members = rows[np.argsort(rank[group], kind="stable")]

    def spread(self, pairs: RowPairs) -> RowPairs:
        """Pairs of rows, from pairs of groups and from the groups themselves."""
        alone = self._sizes == 1
        plain = alone[pairs.first] & alone[pairs.second]
        direct = RowPairs(
            self.firsts[pairs.first[plain]],
            self.firsts[pairs.second[plain]],
            pairs.similarity[plain],
        )
        parts = (direct, self._between(pairs, ~plain), self._inside())
        return in_order(part.ascending() for part in parts)

    def _inside(self) -> RowPairs:
        """Each copy but the last with all that follow it; of many, the first with them."""
        group = np.flatnonzero(self._sizes > 1)
        sizes = self._sizes[group]
        leaders = np.where(sizes * (sizes - 1) // 2 <= NAMED_PAIRS, sizes - 1, 1)
        place = expand(np.zeros_like(leaders), leaders)
        begins = np.repeat(self._begins[group], leaders) + place
        followers = np.repeat(sizes, leaders) - place - 1
        first = self._members[np.repeat(begins, followers)]
        second = self._members[expand(begins + 1, followers)]
        return RowPairs(first, second, np.ones(len(first), np.float32))

    def _between(self, pairs: RowPairs, wanted: Mask) -> RowPairs:
        """All copies of one group with all of the other; of many, with the first of the other."""
        one, other = pairs.first[wanted], pairs.second[wanted]
        sizes, others = self._sizes[one], self._sizes[other]
        all_named = sizes * others <= NAMED_PAIRS
        counts = np.where(all_named, sizes * others, sizes + others - 1)
        place, width = expand(np.zeros_like(counts), counts), np.repeat(sizes, counts)
        named = np.repeat(all_named, counts)
        left = np.where(named, place % width, np.where(place < width, place, 0))
        right = np.where(named, place // width, np.maximum(place - width + 1, 0))
        return RowPairs(
            self._members[np.repeat(self._begins[one], counts) + left],
            self._members[np.repeat(self._begins[other], counts) + right],
            np.repeat(pairs.similarity[wanted], counts),
        )
