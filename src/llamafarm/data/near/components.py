"""Which rows are connected by the pairs found so far."""

from __future__ import annotations

import numpy as np

from llamafarm.data.near.arrays import Mask, Rows


class Components:
    """Connected components of a growing graph; every node is alone at first."""

    def __init__(self, nodes: int) -> None:
        self._label = np.arange(nodes)
        self._pending: list[tuple[Rows, Rows]] = []

    def join(self, first: Rows, second: Rows) -> None:
        """Connect the nodes of each pair."""
        self._pending.append((first, second))

    def connected(self, first: Rows, second: Rows) -> Mask:
        """Whether the nodes of each pair are in one component."""
        for pair in self._pending:
            self._hook(*pair)
        self._pending = []
        same: Mask = self._label[first] == self._label[second]
        return same

    def _hook(self, first: Rows, second: Rows) -> None:
        """Labels are roots: hook the larger of two to the smaller, then shorten all paths, until
        none are left apart.
        """
        while True:
            one, other = self._label[first], self._label[second]
            apart = one != other
            if not apart.any():
                return
            first, second, one, other = first[apart], second[apart], one[apart], other[apart]
            np.minimum.at(self._label, np.maximum(one, other), np.minimum(one, other))
            while not np.array_equal(shorter := self._label[self._label], self._label):
                self._label = shorter
