"""What was found in the data, as plain values: planning reads it, `setup` prints it, the run keeps
it.
"""

from __future__ import annotations

from dataclasses import dataclass

from llamafarm.data.rows import RowRef


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Token counts of the rows of one side.

    total_tokens: all tokens; trained_tokens: those with a label.
    """

    rows: int
    total_tokens: int
    trained_tokens: int
    shortest: int
    median: int
    p95: int
    longest: int


@dataclass(frozen=True, slots=True)
class TruncatedRow:
    """A row longer than max_length.

    tokens: its full length; trained_tokens_cut: answer tokens that were lost.
    """

    source: RowRef
    tokens: int
    trained_tokens_cut: int


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that is not trained on, and why."""

    source: RowRef
    reason: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file or Hub split that was read. sha256: of its bytes (of its rows for a Hub split)."""

    name: str
    sha256: str
    rows: int
    role: str


@dataclass(frozen=True, slots=True)
class DataReport:
    """The facts about one prepared dataset. fingerprint: of both sides' tokens and masks."""

    data_format: str
    files: tuple[SourceFile, ...]
    train: LengthSummary
    eval: LengthSummary | None
    split: str
    template: str
    truncated: tuple[TruncatedRow, ...]
    dropped: tuple[DroppedRow, ...]
    warnings: tuple[str, ...]
    notices: tuple[str, ...]
    fingerprint: str
