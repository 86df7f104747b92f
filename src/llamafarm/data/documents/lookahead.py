"""An iterator of lines that can be looked into, and given lines back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from llamafarm.data.documents.decode import SourceLine


class Lookahead:
    """Lines, one after the other."""

    def __init__(self, lines: Iterator[SourceLine]) -> None:
        self._lines = lines
        self._waiting: deque[SourceLine] = deque()

    def __iter__(self) -> Iterator[SourceLine]:
        while (line := self.take()) is not None:
            yield line

    def take(self) -> SourceLine | None:
        """The next line, or None at the end."""
        return self._waiting.popleft() if self._waiting else next(self._lines, None)

    def peek(self) -> SourceLine | None:
        """The line that is taken next; it stays."""
        if not self._waiting:
            following = next(self._lines, None)
            if following is None:
                return None
            self._waiting.append(following)
        return self._waiting[0]

    def give_back(self, lines: Sequence[SourceLine]) -> None:
        """Put lines in front of those to come."""
        self._waiting.extendleft(reversed(lines))
