"""What an evaluation found: one model on a dataset, and others on the same rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from llamafarm.data.report import DroppedRow
from llamafarm.data.summary import Cuts, truncation_warning
from llamafarm.errors import count_of
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.evaluation.metrics import AnswerMetric, MetricError, measure
from llamafarm.evaluation.paired import (
    RowScores,
    compare_accuracies,
    compare_losses,
    paired_change,
)
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.evaluation.text_metrics import exact_match, rouge_l, token_f1
from llamafarm.monitoring.comparison import ScoreChange

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as text: what was asked, what the data says, what the model says. metrics: those that
    were asked for besides, and have a value a row.
    """

    source: str
    prompt: str
    reference: str
    answer: str
    exact_match: bool
    rouge_l: float
    token_f1: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelScores:
    """Scores of one model. loss per trained token over all rows; exact_match, token_f1, rouge_l and
    metrics, those that were asked for besides, over generated_rows rows.
    """

    loss: float
    perplexity: float
    accuracy: float
    exact_match: float
    rouge_l: float
    generated_rows: int
    samples: tuple[Sample, ...]
    token_f1: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairedRows:
    """The rows that both models were measured on, by their mean loss: how many got better, worse,
    or stayed. scores: the same by every score, with how sure the change is.
    """

    better: int
    worse: int
    same: int
    scores: tuple[ScoreChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass over the rows. sources: the place of each, in the order of by_row; max_length:
    tokens that a row could have; warnings: what happened to rows on the way.
    """

    scores: ModelScores
    trained_tokens: int
    sources: tuple[str, ...]
    by_row: RowLosses
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
        token_f1=token_f1(answer, reference),
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
        token_f1=sum(s.token_f1 for s in samples) / count,
    )


def with_metrics(measured: Measured, metrics: Sequence[AnswerMetric]) -> Measured:
    """The same with further metrics of its answers; one that fails becomes a warning."""
    samples, warnings = measured.scores.samples, list(measured.warnings)
    values: dict[str, float] = {}
    by_row: list[dict[str, float]] = [{} for _ in samples]
    for metric in metrics if samples else ():
        try:
            found = measure(metric, [s.answer for s in samples], [s.reference for s in samples])
        except MetricError as fault:
            warnings.append(fault.text)
            continue
        values[metric.name] = found.value
        for row, value in zip(by_row, found.by_row, strict=False):
            row[metric.name] = value
    scored = tuple(replace(s, metrics=row) for s, row in zip(samples, by_row, strict=True))
    scores = replace(measured.scores, samples=scored, metrics=values)
    return replace(measured, scores=scores, warnings=tuple(warnings))


def compare(
    first: Measured, other: Measured, *, less_is_better: Collection[str] = ()
) -> PairedRows:
    """Row by row, by every score that both have: the first model against the other. A model whose
    losses are not finite has no change of its loss. less_is_better: metrics of which that is so.
    """
    places = {place: row for row, place in enumerate(other.sources)}
    pairs = [(row, places[place]) for row, place in enumerate(first.sources) if place in places]
    ours = first.by_row.of_rows([row for row, _ in pairs])
    theirs = other.by_row.of_rows([row for _, row in pairs])
    better = sum(a < b for a, b in zip(ours.losses, theirs.losses, strict=True))
    worse = sum(a > b for a, b in zip(ours.losses, theirs.losses, strict=True))
    scores: list[ScoreChange] = []
    if pairs and ours.is_finite and theirs.is_finite:
        by_loss = compare_losses(ours, theirs)
        better, worse = by_loss.better, by_loss.worse
        scores.append(ScoreChange("loss", by_loss))
    if pairs and ours.correct and theirs.correct:
        scores.append(ScoreChange("accuracy", compare_accuracies(ours, theirs)))
    answered = _answered_by_both(first.scores.samples, other.scores.samples)
    scores += compare_answers(*answered, less_is_better=less_is_better)
    return PairedRows(better, worse, len(pairs) - better - worse, tuple(scores))


def _answered_by_both(
    ours: Sequence[Sample], theirs: Sequence[Sample]
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    by_place = {sample.source: sample for sample in theirs}
    both = [(s, by_place[s.source]) for s in ours if s.source in by_place]
    return [_row_scores(s) for s, _ in both], [_row_scores(s) for _, s in both]


def _row_scores(sample: Sample) -> dict[str, float]:
    return {
        "exact_match": float(sample.exact_match),
        "token_f1": sample.token_f1,
        "rouge_l": sample.rouge_l,
        **sample.metrics,
    }


def compare_answers(
    ours: Sequence[Mapping[str, float]],
    theirs: Sequence[Mapping[str, float]],
    *,
    less_is_better: Collection[str] = (),
) -> list[ScoreChange]:
    """Scores a row by name, of the same rows: the change of each score that both have. More counts
    as better but for those of less_is_better.
    """
    if not ours or not theirs:
        return []
    shared = [name for name in ours[0] if all(name in row for row in (*ours, *theirs))]
    return [
        ScoreChange(
            name,
            paired_change(
                RowScores.of_rows([row[name] for row in ours]),
                RowScores.of_rows([row[name] for row in theirs]),
                greater_is_better=name not in less_is_better,
            ),
        )
        for name in shared
    ]


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
