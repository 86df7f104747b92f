"""The metrics that `evaluate` measures besides its own: those that are asked for, and those of the
strategy that a run was trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llamafarm.errors import Problem, StrategyError, UserError, count_of, listed
from llamafarm.evaluation.metrics import (
    ALWAYS_MEASURED,
    ANSWER_METRICS,
    FLAG,
    AnswerMetric,
    MetricError,
    find_metric,
)
from llamafarm.strategy.loader import load_strategy
from llamafarm.strategy.model import Strategy

_OWN = (*ALWAYS_MEASURED, *ANSWER_METRICS)


def find_metrics(
    source: str, asked: Sequence[str], *, allow_custom: bool
) -> tuple[tuple[AnswerMetric, ...], tuple[str, ...]]:
    """The metrics, and a line for those of the run that are left out because nobody allowed them.

    What `evaluate` measures anyway is not among them. Raises UserError for what was asked for and
    cannot be had.
    """
    file = _strategy_file(source)
    strategy = _strategy(file)
    of_run = strategy.metrics if strategy else ()
    beside = [*([file.parent] if file else []), Path.cwd()]
    wanted = dict.fromkeys([*asked, *(of_run if allow_custom else ())])
    found: list[AnswerMetric] = []
    problems: list[Problem] = []
    for name in (name for name in wanted if name not in _OWN):
        try:
            metric = find_metric(name, allow_custom=allow_custom, beside=beside)
            found.append(replace(metric, greater_is_better=_direction(name, strategy)))
        except MetricError as fault:
            where = "--metric" if name in asked else str(file)
            problems.append(Problem(fault.text, where=where, hint=fault.hint))
    if problems:
        raise UserError(f"{count_of(len(problems), 'metric')} cannot be measured", problems)
    left_out = [name for name in of_run if name not in _OWN and name not in wanted]
    text = f"left out, as code of your own: {listed(left_out)}; {FLAG} measures it"
    return tuple(found), (text,) if left_out else ()


def _strategy(file: Path | None) -> Strategy | None:
    try:
        return load_strategy(file, None, environ={}) if file else None
    except StrategyError:
        return None


def _direction(name: str, strategy: Strategy | None) -> bool | None:
    """Whether more is better of a function of the user's own, where the strategy says it."""
    told = strategy.training_args if strategy else None
    return told.greater_is_better if told and told.metric_for_best_model == name else None


def _strategy_file(source: str) -> Path | None:
    """`strategy.yaml` of the run that the source is, or lies in."""
    path = Path(source).expanduser().absolute()
    places = (path, *path.parents[:2]) if path.exists() else ()
    files = (place / "strategy.yaml" for place in places if (place / "run.json").is_file())
    return next((file for file in files if file.is_file()), None)
