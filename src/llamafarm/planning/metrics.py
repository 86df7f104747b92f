"""Which metrics a run measures besides the loss, which of them decides what is best, and what is
wrong with their names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamafarm.decision import Decision
from llamafarm.errors import Problem, StrategyError, count_of
from llamafarm.evaluation.metrics import (
    ALWAYS_MEASURED,
    ANSWER_METRICS,
    MetricError,
    find_metric,
    is_dotted,
)
from llamafarm.planning.explain import asked, problem, warning, whereabouts
from llamafarm.planning.plan import ANSWER_TOKENS, ANSWERED_ROWS
from llamafarm.strategy.model import Strategy

_LIST = "metrics"
_BEST = "training_args.metric_for_best_model"
# Names that people write → the field of an `eval` event, and whether more is better.
_BY_LOSS = {
    "loss": ("eval_loss", False),
    "eval_loss": ("eval_loss", False),
    "perplexity": ("perplexity", False),
    "eval_perplexity": ("perplexity", False),
    "accuracy": ("accuracy", True),
    "eval_accuracy": ("accuracy", True),
}


@dataclass(frozen=True, slots=True)
class BestMetric:
    """What decides which step is best. name: as events have it; greater_is_better: None where only
    its author knows.
    """

    name: str
    greater_is_better: bool | None


def best_metric(strategy: Strategy) -> BestMetric | None:
    """None for a name that nothing has."""
    name = strategy.training_args.metric_for_best_model
    if name in _BY_LOSS:
        return BestMetric(*_BY_LOSS[name])
    plain = name.removeprefix("eval_")
    if plain in ANSWER_METRICS:
        return BestMetric(plain, ANSWER_METRICS[plain].greater_is_better)
    return BestMetric(name, None) if name in strategy.metrics else None


def answer_metrics(strategy: Strategy) -> tuple[str, ...]:
    """Those that need answers: of the list, and the one that decides what is best."""
    listed = [name for name in strategy.metrics if name not in ALWAYS_MEASURED]
    best = best_metric(strategy)
    if best is not None and (best.name in ANSWER_METRICS or best.name in strategy.metrics):
        listed.append(best.name)
    return tuple(name for name in dict.fromkeys(listed) if name not in _BY_LOSS)


def metric_decisions(strategy: Strategy, *, evaluations: int) -> list[Decision]:
    """What is measured besides, and what it costs. evaluations: of the run; 0: there is none."""
    names = answer_metrics(strategy)
    if not evaluations:
        if not strategy.metrics:
            return []
        text = f"{whereabouts(strategy, _LIST)} has no effect: nothing is evaluated"
        return [warning(_LIST, strategy.metrics, text)]
    if not names:
        return [asked(strategy, _LIST, strategy.metrics)] if strategy.metrics else []
    cost = (
        f"of answers to the first {ANSWERED_ROWS} evaluation rows, up to {ANSWER_TOKENS} tokens "
        f"each, in every one of {count_of(evaluations, 'evaluation')}"
    )
    if strategy.metrics:
        return [asked(strategy, _LIST, strategy.metrics, cost)]
    return [Decision(_LIST, ", ".join(names), "detected", f"metric_for_best_model; {cost}")]


def best_metric_problems(strategy: Strategy) -> Iterator[Problem]:
    """A name that nothing has; one that nobody can say the direction of."""
    name = strategy.training_args.metric_for_best_model
    best = best_metric(strategy)
    if best is None:
        known = (*_BY_LOSS, *ANSWER_METRICS, *strategy.metrics)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"there are: {', '.join(dict.fromkeys(known))}"
        if is_dotted(name):
            hint = f"name {name} under `metrics:` too"
        elif near:
            hint = f"did you mean `{near[0]}`? {hint}"
        yield problem(strategy, _BEST, f"unknown metric (got {name})", hint)
    elif best.greater_is_better is None and strategy.training_args.greater_is_better is None:
        yield problem(
            strategy,
            _BEST,
            f"nothing says whether more of {name} is better",
            "write `greater_is_better: true`, or false, beside it",
        )


def check_metrics(strategy: Strategy, *, allow_custom: bool, working_directory: Path) -> None:
    """Every metric of the list is known, or allowed and there: functions of the user's own are
    imported. Raises StrategyError with every one that is not.
    """
    beside = [*([strategy.file.parent] if strategy.file else []), working_directory]
    problems: list[Problem] = []
    for name in strategy.metrics:
        if name in ALWAYS_MEASURED:
            continue
        try:
            find_metric(name, allow_custom=allow_custom, beside=beside)
        except MetricError as fault:
            problems.append(problem(strategy, _LIST, fault.text, fault.hint))
    if problems:
        raise StrategyError(f"{strategy.id} has {count_of(len(problems), 'problem')}", problems)
