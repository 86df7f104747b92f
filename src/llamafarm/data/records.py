"""What a reader yields: a record as it stood in its file, or why it is not one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamafarm.data.rows import RowRef
from llamafarm.errors import DataError, Problem, count_of

MAX_LISTED = 20
MAX_REASONS = 5
ROW_HINT = 'a row looks like {"question": "What is …?", "answer": "It is …"}'


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file. raw: for JSONL the exact bytes of its line, line ending included; else
    empty.
    """

    source: RowRef
    fields: Mapping[str, object]
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used. empty: its only fault is that a text is missing or blank."""

    source: RowRef
    problems: tuple[Problem, ...]
    empty: bool = False

    @property
    def reason(self) -> str:
        """Its faults in one line, the first MAX_REASONS of them."""
        shown = self.problems[:MAX_REASONS]
        text = "; ".join(f"{p.path}: {p.message}" if p.path else p.message for p in shown)
        more = len(self.problems) - len(shown)
        return f"{text}; and {more:,} more" if more else text


Item = Record | BadRow


class FaultList:
    """Collects the faults of one file; keeps the first MAX_LISTED, counts all."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._problems: list[Problem] = []
        self.count = 0

    def add(self, bad: BadRow) -> None:
        """Take all faults of a row."""
        self.count += len(bad.problems)
        room = max(0, MAX_LISTED - len(self._problems))
        self._problems += bad.problems[:room]

    def raise_if_any(self) -> None:
        """Raise DataError with what was collected."""
        if not self.count:
            return
        unlisted = self.count - len(self._problems)
        more = [Problem(f"and {unlisted:,} more")] if unlisted else []
        raise DataError(
            f"{self._name} has {count_of(self.count, 'problem')}",
            [*self._problems, *more],
            hint="correct these rows, or leave them out with --skip-bad-rows",
        )
