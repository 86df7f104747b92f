"""The few longest of many texts, and where they stand."""

from __future__ import annotations

import heapq

from llamafarm.data.quality.excerpt import excerpt
from llamafarm.data.quality.report import MAX_EXAMPLES, RowExample
from llamafarm.data.rows import RowRef


class Longest:
    """Keeps MAX_EXAMPLES rows; of two equally long ones, the first."""

    __slots__ = ("_kept", "_seen")

    def __init__(self) -> None:
        # (characters, -number of the row, source, text to show); the shortest is at the front.
        self._kept: list[tuple[int, int, RowRef, str]] = []
        self._seen = 0

    def offer(self, characters: int, source: RowRef, text: str, shown: slice) -> None:
        """One more row of so many characters; text[shown]: the part of its text that matters."""
        self._seen += 1
        if len(self._kept) < MAX_EXAMPLES:
            heapq.heappush(self._kept, (characters, -self._seen, source, text[shown]))
        elif characters > self._kept[0][0]:
            heapq.heapreplace(self._kept, (characters, -self._seen, source, text[shown]))

    def examples(self, least: float) -> tuple[RowExample, ...]:
        """Those of at least so many characters, the longest first."""
        rows = sorted(self._kept, key=lambda kept: (-kept[0], -kept[1]))
        return tuple(
            RowExample(source, excerpt(shown))
            for characters, _, source, shown in rows
            if characters >= least
        )
