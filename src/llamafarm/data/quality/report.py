"""What was noticed in the rows, as plain values that can be written as JSON and read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llamafarm.data.rows import RowRef

Level = Literal["warning", "notice"]

# Rows of one finding that are shown; all of them are counted.
MAX_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class RowExample:
    """One row of a finding.

    excerpt: at most 80 characters, on one line, personal data hidden, what cannot be printed
    written as an escape.
    """

    source: RowRef
    excerpt: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or may be, with some of the rows.

    kind: a name that does not change, e.g. `email`; text: how many rows, what about them, and by
    which rule; rows: their number; examples: the first of them (the longest where length is what
    matters), at most MAX_EXAMPLES; advice: what to type or do.
    """

    kind: str
    rows: int
    text: str
    examples: tuple[RowExample, ...]
    advice: str
    level: Level


@dataclass(frozen=True, slots=True)
class LengthStats:
    """Characters of one part of the rows. rows: those that have the part.

    shortest and longest are exact; median and p95 are at most 1 % too low.
    """

    rows: int
    shortest: int
    median: int
    p95: int
    longest: int


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The facts about the rows, and the findings, warnings first.

    sides: rows of each side; turns: turns of each role; prompts: what is read of a row, answers:
    what is learnt of it (a plain text is learnt whole); None where no row has any. languages: ISO
    639 code and rows, the most frequent first, `und` for rows that are too short or unclear to
    tell, of the languages_rows that were looked at. scripts: of all rows with enough letters.
    notes: how far the search went.
    """

    rows: int
    sides: tuple[tuple[str, int], ...]
    turns: tuple[tuple[str, int], ...]
    languages: tuple[tuple[str, int], ...]
    languages_rows: int
    scripts: tuple[tuple[str, int], ...]
    prompts: LengthStats | None
    answers: LengthStats | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What a person should not miss."""
        return tuple(finding for finding in self.findings if finding.level == "warning")

    @property
    def notices(self) -> tuple[Finding, ...]:
        """What a person may want to know."""
        return tuple(finding for finding in self.findings if finding.level == "notice")
