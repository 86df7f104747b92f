"""Counting rows of one kind, with a few of them as examples."""

from __future__ import annotations

from llamafarm.data.quality.excerpt import excerpt
from llamafarm.data.quality.report import MAX_EXAMPLES, Finding, Level, RowExample
from llamafarm.data.rows import RowRef


class Tally:
    """Rows of one kind: all counted, the first MAX_EXAMPLES kept."""

    __slots__ = ("_examples", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._examples: list[RowExample] = []

    def add(self, source: RowRef, text: str, at: int = 0) -> None:
        """One more row; its excerpt is taken around text[at]."""
        self.rows += 1
        if len(self._examples) < MAX_EXAMPLES:
            self._examples.append(RowExample(source, excerpt(text, at)))

    def finding(self, kind: str, text: str, advice: str, level: Level) -> Finding:
        """What was counted, in words."""
        return Finding(kind, self.rows, text, tuple(self._examples), advice, level)
