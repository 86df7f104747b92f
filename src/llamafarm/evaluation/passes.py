"""Progress over several models on the same rows, as if it were one long list."""

from __future__ import annotations

from collections.abc import Callable

OnRows = Callable[[int, int], None]


class Passes:
    """on_rows is told rows done and rows in all, over `count` passes."""

    def __init__(self, on_rows: OnRows, count: int) -> None:
        self._on_rows = on_rows
        self._count = count
        self._begun = 0

    def begin(self) -> OnRows:
        """For the next pass: to be told the rows done in it, and how many it has."""
        before = self._begun
        self._begun += 1

        def on_rows(done: int, rows: int) -> None:
            self._on_rows(before * rows + done, self._count * rows)

        return on_rows
