"""The few longest of many texts, and where they stand."""

from __future__ import annotations

import heapq

from llamafarm.data.quality.excerpt import around, excerpt
from llamafarm.data.quality.report import MAX_EXAMPLES, RowExample
from llamafarm.data.rows import RowRef


class Longest:
    """Keeps MAX_EXAMPLES rows; of two equally long ones, the first."""

    __slots__ = ("_kept", "_seen")

    def __init__(self) -> None:
        # (characters, -number of the row, source, what to show); the shortest is at the front.
        self._kept: list[tuple[int, int, RowRef, tuple[str, int]]] = []
        self._seen = 0

    def offer(self, characters: int, source: RowRef, text: str, at: int = 0) -> None:
        """One more row of so many characters; its excerpt is taken around text[at]."""
        self._seen += 1
        if len(self._kept) < MAX_EXAMPLES:
            heapq.heappush(self._kept, (characters, -self._seen, source, around(text, at)))
        elif characters > self._kept[0][0]:
            heapq.heapreplace(self._kept, (characters, -self._seen, source, around(text, at)))

    def examples(self, least: float) -> tuple[RowExample, ...]:
        """Those of at least so many characters, the longest first."""
        rows = sorted(self._kept, key=lambda kept: (-kept[0], -kept[1]))
        return tuple(
            RowExample(source, excerpt(*shown))
            for characters, _, source, shown in rows
            if characters >= least
        )
