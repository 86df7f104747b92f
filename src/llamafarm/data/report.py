"""What was found in the data, as plain values: planning reads it, `setup` prints it, the run keeps
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llamafarm.data.quality.report import QualityReport
from llamafarm.data.rows import RowRef
from llamafarm.errors import count_of

# Rows that a report names one by one; all of them are counted.
MAX_NAMED = 1000

DropKind = Literal[
    "unreadable",
    "empty",
    "emptied by remove_patterns",
    "duplicate",
    "beyond max_samples",
    "not drawn",
    "prompt too long",
    "answer too long",
    "nothing trained",
    "refused by the chat template",
]
LeakKind = Literal["exact", "normalised", "near", "same prompt", "contained"]

LEAK_WORDS: Mapping[LeakKind, str] = {
    "exact": "says the same as",
    "normalised": "says the same, but for case, punctuation or spaces, as",
    "near": "says nearly the same as",
    "same prompt": "asks the same as",
    "contained": "is contained in",
}
_SIDES = {"eval": "evaluation", "test": "test"}


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Token counts of the rows of one side.

    total_tokens: all tokens; trained_tokens: those with a label. histogram: (tokens, rows): rows
    of at most so many tokens that are longer than the bin before.
    """

    rows: int
    total_tokens: int
    trained_tokens: int
    shortest: int
    median: int
    p95: int
    longest: int
    histogram: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class TruncatedRow:
    """A row longer than max_length.

    tokens: its full length; trained_tokens_cut: answer tokens that were lost; lost: how the text
    that was cut off begins.
    """

    source: RowRef
    tokens: int
    trained_tokens_cut: int
    lost: str = ""


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that is not trained on, and why."""

    source: RowRef
    reason: str
    kind: DropKind = "unreadable"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file or Hub split that was read. sha256: of its bytes (of its rows for a Hub split).

    rows: those that can be used; weight: how often each counts in an epoch.
    """

    name: str
    sha256: str
    rows: int
    role: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LeakedRow:
    """A row to measure on that a training row says already. similarity: Jaccard for near rows, the
    share that is contained for contained ones, else 1.
    """

    row: RowRef
    twin: RowRef
    kind: LeakKind
    similarity: float


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """Rows of one side (eval or test) that the training rows give away; each counts once, under
    the first kind that fits. forced: the side was split off the training rows, which say the same
    too often to be parted cleanly; examples: some of the rows.
    """

    side: str
    rows: int
    exact: int
    normalised: int
    near: int
    same_prompt: int
    contained: int
    forced: bool
    examples: tuple[LeakedRow, ...]

    @property
    def leaked(self) -> int:
        """Rows that the gate counts: all kinds but `contained`."""
        return self.exact + self.normalised + self.near + self.same_prompt

    @property
    def share(self) -> float:
        """Share of the rows that the gate counts."""
        return self.leaked / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class DropCount:
    """How many rows were left out for one reason."""

    kind: DropKind
    rows: int


@dataclass(frozen=True, slots=True)
class TokenLedger:
    """Where every row and every token went.

    rows_in: records of all files that are trained or evaluated on; rows_kept: token rows of both
    sides, a row as often as its weight repeats it; trained_tokens: tokens that the loss counts.
    answers_end_trained: answers whose end-of-turn token is trained.
    """

    rows_in: int
    rows_kept: int
    dropped: tuple[DropCount, ...]
    tokens: int
    trained_tokens: int
    answers: int
    answers_end_trained: int
    rows_truncated: int
    trained_tokens_cut: int
    template_sha256: str

    @property
    def rows_dropped(self) -> int:
        """Rows left out, for whatever reason."""
        return sum(count.rows for count in self.dropped)


@dataclass(frozen=True, slots=True)
class DuplicateCounts:
    """Training rows that repeat others. exact: beyond the first of each; near: rows with a near
    duplicate that is not an exact one; similarity: from which on two rows are near duplicates.
    """

    exact: int
    near: int
    similarity: float


@dataclass(frozen=True, slots=True)
class DataReport:
    """The facts about one prepared dataset. fingerprint: of both sides' tokens and masks.

    truncated, dropped: at most MAX_NAMED rows of each; the ledger counts all.
    """

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
    ledger: TokenLedger | None = None
    duplicates: DuplicateCounts | None = None
    leakage: tuple[LeakageReport, ...] = ()
    quality: QualityReport | None = None

    @property
    def rows_truncated(self) -> int:
        """Rows that were cut, named or not."""
        return self.ledger.rows_truncated if self.ledger else len(self.truncated)

    @property
    def trained_tokens_cut(self) -> int:
        """Answer tokens that were lost with them."""
        if self.ledger:
            return self.ledger.trained_tokens_cut
        return sum(row.trained_tokens_cut for row in self.truncated)

    @property
    def rows_dropped(self) -> int:
        """Rows that were left out, named or not."""
        return self.ledger.rows_dropped if self.ledger else len(self.dropped)


def leak_text(leaked: LeakedRow) -> str:
    """One leak in words: `eval.jsonl:3 says the same as train.jsonl:17`."""
    share = f" ({leaked.similarity:.0%})" if leaked.kind in ("near", "contained") else ""
    return f"{leaked.row} {LEAK_WORDS[leaked.kind]} {leaked.twin}{share}"


def leakage_text(report: LeakageReport) -> str:
    """`3 of 20 evaluation rows: 2 exact, 1 near`."""
    kinds = {
        "exact": report.exact,
        "normalised": report.normalised,
        "near": report.near,
        "same prompt": report.same_prompt,
        "contained": report.contained,
    }
    counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    total = report.leaked + report.contained
    rows = count_of(report.rows, f"{_SIDES.get(report.side, report.side)} row")
    return f"{total:,} of {rows}: {counted}" if total else f"none in {rows}"
