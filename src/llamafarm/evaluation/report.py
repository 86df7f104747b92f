"""What an evaluation found: one model on a dataset, and others on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamafarm.data.report import DroppedRow
from llamafarm.data.summary import Cuts, truncation_warning
from llamafarm.errors import count_of
from llamafarm.evaluation.loss import LossResult
from llamafarm.evaluation.text_metrics import exact_match, rouge_l

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as text: what was asked, what the data says, what the model says."""

    source: str
    prompt: str
    reference: str
    answer: str
    exact_match: bool
    rouge_l: float


@dataclass(frozen=True, slots=True)
class ModelScores:
    """Scores of one model. loss per trained token over all rows; exact_match, rouge_l over
    generated_rows rows.
    """

    loss: float
    perplexity: float
    accuracy: float
    exact_match: float
    rouge_l: float
    generated_rows: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class PairedRows:
    """The rows that both models were measured on, by their mean loss: how many got better, worse,
    or stayed.
    """

    better: int
    worse: int
    same: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass over the rows. row_losses: mean loss of each row by its place; max_length: tokens
    that a row could have; warnings: what happened to rows on the way.
    """

    scores: ModelScores
    trained_tokens: int
    row_losses: Mapping[str, float]
    max_length: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """A further model on the same rows. name: a short one, for the head of a column; paired: the
    first model against this one.
    """

    name: str
    source: str
    rows: int
    trained_tokens: int
    scores: ModelScores
    paired: PairedRows


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What `evaluate` answers. name: of the first model, whose scores are `tuned`. base and paired
    are None without --compare-base; compared is empty without --compare.
    """

    source: str
    dataset: str
    rows: int
    trained_tokens: int
    tuned: ModelScores
    base: ModelScores | None = None
    paired: PairedRows | None = None
    name: str = "tuned"
    compared: tuple[ComparedModel, ...] = ()
    warnings: tuple[str, ...] = ()


def make_sample(source: str, prompt: str, reference: str, answer: str) -> Sample:
    """An answer, scored against the reference."""
    answer = answer.strip()
    return Sample(
        source=source,
        prompt=prompt,
        reference=reference,
        answer=answer,
        exact_match=exact_match(answer, reference),
        rouge_l=rouge_l(answer, reference),
    )


def model_scores(losses: LossResult, samples: Sequence[Sample]) -> ModelScores:
    """All scores of a model from its losses and its answers."""
    count = max(len(samples), 1)
    return ModelScores(
        loss=losses.loss,
        perplexity=losses.perplexity,
        accuracy=losses.accuracy,
        exact_match=sum(s.exact_match for s in samples) / count,
        rouge_l=sum(s.rouge_l for s in samples) / count,
        generated_rows=len(samples),
        samples=tuple(samples),
    )


def compare(first: Measured, other: Measured) -> PairedRows:
    """Row by row: which model finds the answer more likely."""
    pairs = [
        (loss, other.row_losses[row])
        for row, loss in first.row_losses.items()
        if row in other.row_losses
    ]
    better = sum(ours < theirs for ours, theirs in pairs)
    worse = sum(ours > theirs for ours, theirs in pairs)
    return PairedRows(better, worse, len(pairs) - better - worse)


def row_warnings(
    cuts: Cuts,
    dropped: Sequence[DroppedRow],
    rows: int,
    max_length: int,
    *,
    rows_dropped: int | None = None,
) -> tuple[str, ...]:
    """Rows that were cut, and rows that could not be measured at all. rows: how many were measured;
    rows_dropped: how many were not, where not every one of them is named.
    """
    found = truncation_warning(cuts, rows, max_length)
    total = len(dropped) if rows_dropped is None else rows_dropped
    if dropped:
        listed = ", ".join(f"{row.source} ({row.reason})" for row in dropped[:_LISTED])
        more = ", …" if total > _LISTED else ""
        found.append(f"{count_of(total, 'row')} could not be measured: {listed}{more}")
    return tuple(found)
