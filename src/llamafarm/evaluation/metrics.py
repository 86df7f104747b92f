"""Metrics by name: what is measured anyway, scores of generated answers, and functions of the
user's own.

A function of the user's own is `f(answers: Sequence[str], references: Sequence[str])`, and gives
one number, or one a row. It is named by its dotted path, and imported only where a flag on the
command line allows it: a strategy file alone runs no code.
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.evaluation.text_metrics import exact_match, rouge_l, token_f1

MetricFunction = Callable[[Sequence[str], Sequence[str]], object]

FLAG = "--allow-custom-metrics"
# Of every evaluation, whatever else is asked for.
ALWAYS_MEASURED = ("loss", "perplexity", "accuracy")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


@dataclass(frozen=True, slots=True)
class AnswerMetric:
    """A score of generated answers. greater_is_better: None where only its author knows."""

    name: str
    function: MetricFunction
    greater_is_better: bool | None = None


@dataclass(frozen=True, slots=True)
class MetricValue:
    """value: over all rows; by_row: of each, empty where the function gives one number for all."""

    value: float
    by_row: tuple[float, ...] = ()


class MetricError(Exception):
    """A metric that cannot be had, or failed; the text says why."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text, self.hint = text, hint


def _each(score: Callable[[str, str], float]) -> MetricFunction:
    def all_rows(answers: Sequence[str], references: Sequence[str]) -> list[float]:
        return [float(score(a, r)) for a, r in zip(answers, references, strict=True)]

    return all_rows


ANSWER_METRICS: Mapping[str, AnswerMetric] = {
    name: AnswerMetric(name, _each(score), greater_is_better=True)
    for name, score in (
        ("exact_match", exact_match),
        ("token_f1", token_f1),
        ("rouge_l", rouge_l),
    )
}


def is_dotted(name: str) -> bool:
    """Whether it has the form of a function's path."""
    return bool(_DOTTED.fullmatch(name))


def find_metric(name: str, *, allow_custom: bool, beside: Sequence[Path] = ()) -> AnswerMetric:
    """A registered metric of answers, or a function by its dotted path. Raises MetricError.

    beside: directories to import from, besides where Python looks.
    """
    if name in ANSWER_METRICS:
        return ANSWER_METRICS[name]
    if not is_dotted(name):
        known = (*ALWAYS_MEASURED, *ANSWER_METRICS)
        near = difflib.get_close_matches(name, known, n=1)
        raise MetricError(
            f"unknown metric (got {name})",
            (f"did you mean `{near[0]}`? " if near else "")
            + f"there are: {', '.join(known)}, and functions of your own as package.function",
        )
    if not allow_custom:
        raise MetricError(
            f"{name} is code of your own, which a strategy file alone does not run",
            f"add {FLAG} to the command if you trust it",
        )
    return AnswerMetric(name, _import(name, beside))


def measure(metric: AnswerMetric, answers: Sequence[str], references: Sequence[str]) -> MetricValue:
    """Raises MetricError where the function raises, or gives something else than numbers."""
    try:
        found: Any = metric.function(tuple(answers), tuple(references))
        # numpy and torch have numbers of their own, of no dimension.
        if isinstance(found, bool | int | float) or getattr(found, "ndim", None) == 0:
            return _finite(metric.name, MetricValue(float(found)))
        by_row = tuple(float(value) for value in found)
    except Exception as error:  # whatever code of the user's raises
        raise MetricError(f"{metric.name} failed: {type(error).__name__}: {error}") from error
    if len(by_row) != len(answers):
        raise MetricError(f"{metric.name} gave {len(by_row)} values for {len(answers)} answers")
    return _finite(metric.name, MetricValue(sum(by_row) / max(1, len(by_row)), by_row))


def _finite(name: str, found: MetricValue) -> MetricValue:
    if not all(map(math.isfinite, (found.value, *found.by_row))):
        raise MetricError(f"{name} gave a value that is not a finite number")
    return found


def _import(name: str, beside: Sequence[Path]) -> MetricFunction:
    module, _, attribute = name.rpartition(".")
    before = list(sys.path)
    sys.path[:0] = [str(path) for path in beside if str(path) not in before]
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module that is imported runs
        raise MetricError(
            f"{name} cannot be imported: {type(error).__name__}: {error}",
            f"{module.partition('.')[0]} has to be installed, or lie beside the strategy file or "
            "in the working directory",
        ) from error
    finally:
        sys.path[:] = before
    if not callable(function):
        raise MetricError(
            f"{name} is no function (it is of type {type(function).__name__})",
            "name a function f(answers, references)",
        )
    return function  # type: ignore[no-any-return]  # whatever it is, it can be called
