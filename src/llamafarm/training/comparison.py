"""Base, best and last step of a run on the same rows, from what its evaluations kept: nothing is
computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from llamafarm.evaluation.paired import INTERVAL, RESAMPLES, compare_losses
from llamafarm.evaluation.report import compare_answers
from llamafarm.files import write_json_atomic
from llamafarm.monitoring.comparison import (
    ComparedModel,
    Comparison,
    PairedChange,
    Sample,
    SampleAnswer,
    ScoreChange,
    verdict_text,
)
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.summary import perplexity_of
from llamafarm.planning.plan import SAMPLE_ROWS
from llamafarm.training.evaluations import StepEvaluation, last_evaluated_step, read_evaluation

_BASE, _BEST, _LAST = "base", "best", "last"


def compare_run(
    evaluations: Path,
    best_step: int,
    *,
    load_best: bool,
    samples: Sequence[Sample] = (),
    less_is_better: Collection[str] = (),
) -> Comparison | None:
    """evaluations: the directory they are kept in; best_step: 0 where there is none; load_best:
    whether the best one is kept, else the last; samples: answers, where the evaluations have none;
    less_is_better: metrics of answers of which that is so. None where nothing was evaluated.
    """
    found = _evaluations(evaluations, best_step)
    if not found:
        return None
    base, best, last = (found.get(name) for name in (_BASE, _BEST, _LAST))
    kept = (best if load_best else None) or last or best
    return Comparison(
        rows=len(next(iter(found.values())).sources),
        models=tuple(_model(name, each, base, less_is_better) for name, each in found.items()),
        samples=_answered(found) or tuple(samples),
        note=_note(base, best, last),
        against_base=_change(kept, base),
        last_against_best=_change(last, best),
    )


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Raises OSError."""
    write_json_atomic(path, to_jsonable(comparison))


def _evaluations(directory: Path, best_step: int) -> dict[str, StepEvaluation]:
    """Those that are there and whose every loss is a number, the best and the last one once."""
    last_step = last_evaluated_step(directory)
    wanted = {_BASE: 0, _BEST: best_step or None, _LAST: last_step}
    found: dict[str, StepEvaluation] = {}
    for name, step in wanted.items():
        if step is None or step in (each.step for each in found.values()):
            continue
        evaluation = read_evaluation(directory, step)
        if evaluation is not None and evaluation.by_row.is_finite and evaluation.sources:
            found[name] = evaluation
    return found


def _model(
    name: str,
    found: StepEvaluation,
    base: StepEvaluation | None,
    less_is_better: Collection[str],
) -> ComparedModel:
    loss = found.by_row.loss
    change = _change(found, base)
    return ComparedModel(
        name=name,
        step=found.step,
        eval_loss=loss,
        perplexity=perplexity_of(loss),
        accuracy=found.by_row.accuracy,
        change=change.change if change else None,
        change_low=change.low if change else None,
        change_high=change.high if change else None,
        rows_better=change.better if change else None,
        rows_worse=change.worse if change else None,
        rows_same=change.same if change else None,
        verdict=verdict_text(change) if change else "",
        metrics={name: value.value for name, value in found.metrics.items()},
        metric_changes=_metric_changes(found, base, less_is_better),
    )


def _change(found: StepEvaluation | None, other: StepEvaluation | None) -> PairedChange | None:
    """None where one is not there, both are one, or the rows are others."""
    if found is None or other is None or found is other or found.sources != other.sources:
        return None
    return compare_losses(found.by_row, other.by_row)


def _metric_changes(
    found: StepEvaluation, base: StepEvaluation | None, less_is_better: Collection[str]
) -> tuple[ScoreChange, ...]:
    if base is None or found is base:
        return ()
    places = [row.source for row in base.answers]
    if not places or places != [row.source for row in found.answers]:
        return ()
    changes = compare_answers(_by_row(found), _by_row(base), less_is_better=less_is_better)
    return tuple(changes)


def _by_row(found: StepEvaluation) -> list[dict[str, float]]:
    """The metrics that have a value a row, of each answered row."""
    whole = {n: v.by_row for n, v in found.metrics.items() if len(v.by_row) == len(found.answers)}
    return [{n: values[row] for n, values in whole.items()} for row in range(len(found.answers))]


def _answered(found: dict[str, StepEvaluation]) -> tuple[Sample, ...]:
    """The first rows as every model answered them, where its evaluation had to."""
    models = {name: {r.source: r for r in each.answers} for name, each in found.items()}
    models = {name: rows for name, rows in models.items() if rows}
    first = next(iter(models.values()), {})
    return tuple(
        Sample(
            source,
            row.prompt,
            row.reference,
            tuple(
                SampleAnswer(name, rows[source].answer)
                for name, rows in models.items()
                if source in rows
            ),
        )
        for source, row in list(first.items())[:SAMPLE_ROWS]
    )


def _note(
    base: StepEvaluation | None, best: StepEvaluation | None, last: StepEvaluation | None
) -> str:
    """How sure it is, and what it cannot say."""
    texts = []
    if base is not None and (best or last):
        texts.append(
            f"Change: against the base, row by row; {INTERVAL:.0%} intervals from {RESAMPLES:,} "
            "bootstrap samples of the rows."
        )
    if best is not None and last is not None:
        texts.append(f"Last against best: {_told(_change(last, best))}.")
    if base is not None and best is not None and last is not None:
        texts.append("The best step was chosen on these rows, which flatters it a little.")
    if base is not None and best is not None and last is None:
        texts.append("The best step is the last one.")
    return " ".join(texts)


def _told(change: PairedChange | None) -> str:
    if change is None:
        return "not comparable"
    interval = ""
    if change.low is not None and change.high is not None:
        interval = f", {change.low:+.4f} to {change.high:+.4f}"
    return f"{verdict_text(change)} (change {change.change + 0.0:+.4f}{interval})"
