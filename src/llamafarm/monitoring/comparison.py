"""Models on the same rows, as plain values: what a run keeps in `comparison.json`, and the report
shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["better", "worse", "no difference", "too few rows"]
"""no difference: 0 lies in the interval; too few rows: fewer moved than an interval needs."""


@dataclass(frozen=True, slots=True)
class PairedChange:
    """One score of a model minus that of another on the same rows. change: of the score over all
    rows; low, high: its 95 % interval, None where too few rows moved for one.

    better, worse, same: rows by their own score.
    """

    change: float
    low: float | None
    high: float | None
    better: int
    worse: int
    same: int
    verdict: Verdict

    @property
    def rows(self) -> int:
        """How many rows both models were measured on."""
        return self.better + self.worse + self.same


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """A score by name: `exact_match`, `rouge_l`, or a metric of the user's own."""

    score: str
    paired: PairedChange


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One of them. name: `base`, `best` or `last`; step: whose weights these are (0: the base).

    change: of eval_loss against the base, with its 95 % interval; rows_better, rows_worse,
    rows_same: rows with a lower, a higher and an equal loss; verdict: what that comes to. None and
    empty: not measured, or the base itself. metrics: further ones by name, with their change
    against the base in metric_changes where they have a value a row.
    """

    name: str
    step: int
    eval_loss: float
    perplexity: float
    accuracy: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    rows_better: int | None = None
    rows_worse: int | None = None
    rows_same: int | None = None
    verdict: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    metric_changes: tuple[ScoreChange, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    """What one of the models answers. name: as ComparedModel has it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One evaluation row, answered. source: `file:line`; expected: the answer in the data."""

    source: str
    prompt: str
    expected: str
    answers: tuple[SampleAnswer, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired: every model sees the same rows. note: how the intervals were made, and what they
    cannot say.

    against_base: eval_loss of the model that is kept, minus the base's; last_against_best: of the
    last step, minus the best one's; None where one of the two was not measured, or both are one.
    """

    rows: int
    models: tuple[ComparedModel, ...]
    samples: tuple[Sample, ...] = ()
    note: str = ""
    against_base: PairedChange | None = None
    last_against_best: PairedChange | None = None


def verdict_text(paired: PairedChange) -> str:
    """The verdict in words: `no difference: inside the noise`."""
    match paired.verdict:
        case "no difference" if paired.same == paired.rows:
            return "no difference: every row is the same"
        case "no difference":
            return "no difference: inside the noise"
        case "too few rows":
            moved = paired.better + paired.worse
            return f"too few rows to tell: {moved:,} of {paired.rows:,} moved"
    return paired.verdict
