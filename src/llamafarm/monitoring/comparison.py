"""Base, best and last step on the same rows, as plain values: what a run keeps in
`comparison.json`, and the report shows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One of them. name: `base`, `best` or `last`; step: whose weights these are (0: the base).

    change: of eval_loss against the base, with its 95 % interval; rows_better, rows_worse: rows
    with a lower and with a higher loss than the base's. None: not measured, or the base itself.
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
    """Paired: every model sees the same rows. note: how the intervals were made."""

    rows: int
    models: tuple[ComparedModel, ...]
    samples: tuple[Sample, ...] = ()
    note: str = ""
