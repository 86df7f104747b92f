"""The pairs found so far, to be asked whether a pair is among them."""

from __future__ import annotations

import numpy as np

from llamafarm.data.near.arrays import Mask, Rows, Similarity
from llamafarm.data.near.pairs import RowPairs


class FoundPairs:
    """Pairs of indices below `rows`, 12 bytes each: a pair is the number first * rows + second.

    They are kept as ascending runs, each at least twice as long as the next, so that adding n pairs
    in any portions takes n log n steps.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._runs: list[tuple[Rows, Similarity]] = []

    def holds(self, first: Rows, second: Rows) -> Mask:
        """Which of these pairs were added before."""
        keys = first * self._rows + second
        held = np.zeros(len(keys), dtype=np.bool_)
        for run, _ in self._runs:
            held |= run[np.minimum(np.searchsorted(run, keys), len(run) - 1)] == keys
        return held

    def add(self, first: Rows, second: Rows, similarity: Similarity) -> None:
        """Pairs that are not held yet, each once."""
        if not len(first):
            return
        keys, values = first * self._rows + second, similarity
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            run, of_run = self._runs.pop()
            keys, values = np.concatenate([run, keys]), np.concatenate([of_run, values])
        order = np.argsort(keys)
        self._runs.append((keys[order], values[order]))

    def pairs(self) -> RowPairs:
        """All of them, each run in order."""
        keys = np.concatenate([run for run, _ in self._runs] or [np.empty(0, np.int64)])
        values = [values for _, values in self._runs] or [np.empty(0, np.float32)]
        return RowPairs(keys // self._rows, keys % self._rows, np.concatenate(values))
