"""How sure a difference between two losses is."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from llamafarm.monitoring.diagnosis.observed import Observed, Stretch
from llamafarm.monitoring.events import EvalEvent

# About one in a thousand for a whole run: a finding told wrongly stays told.
ALARM = 1e-3
# What is surer than that, a model of the noise cannot say.
_SUREST = 0.999
_FEWEST_EVENTS = 6


@dataclass(frozen=True, slots=True)
class Level:
    """A mean training loss per token, and its standard error."""

    mean: float
    error: float


def level_of(stretches: Sequence[Stretch]) -> Level | None:
    """None where there is nothing; of fewer than three stretches the error is infinite.

    The scatter is that of neighbours, so that a falling loss is not taken for noise: half the mean
    square of successive differences (von Neumann 1941).
    """
    tokens = sum(s.tokens for s in stretches)
    if not tokens:
        return None
    mean = sum(s.loss * s.tokens for s in stretches) / tokens
    if len(stretches) < 3:
        return Level(mean, math.inf)
    steps = [b.loss - a.loss for a, b in itertools.pairwise(stretches)]
    variance = statistics.fmean(step**2 for step in steps) / 2
    return Level(mean, math.sqrt(variance / len(stretches)))


def first_level(observed: Observed) -> Level | None:
    """Where the training loss was before the rate was high: up to the end of the warm-up, at least
    the first three events.
    """
    settings = observed.settings
    known = [s for s in observed.stretches if math.isfinite(s.loss)]
    warmup = settings.warmup_steps if settings else 0
    count = sum(s.step <= warmup // 2 for s in known)
    if len(known) < _FEWEST_EVENTS:
        return None
    return level_of(known[: max(3, min(count, len(known) // 4))])


def last_level(observed: Observed) -> Level | None:
    """The training loss of the last quarter, at least three events."""
    known = [s for s in observed.stretches if math.isfinite(s.loss)]
    if len(known) < _FEWEST_EVENTS:
        return None
    return level_of(known[-max(3, len(known) // 4) :])


def change_between(before: Level, after: Level) -> Level:
    """`after` minus `before`."""
    return Level(after.mean - before.mean, math.hypot(before.error, after.error))


def sureness(value: float, error: float, rows: int) -> float:
    """The chance that the true value has that sign and lies above 0: of Student's t with rows - 1
    degrees of freedom, by the normal approximation of Wallace (1959).
    """
    return min(_SUREST, max(1 - _SUREST, _chance(value, error, rows)))


def surely_worse(evaluation: EvalEvent, evaluations: int) -> float:
    """How sure it is that an evaluation is worse than the best one before, over the same rows; 0
    unless it lies outside the noise band of so many evaluations.
    """
    change, error = evaluation.change, evaluation.change_standard_error
    if change is None or error is None or not math.isfinite(change):
        return 0.0
    return surely_above(change, error, evaluation.rows, evaluations)


def surely_above(value: float, error: float, rows: int, evaluations: int) -> float:
    """How sure it is that a difference between two evaluations is above 0; 0 unless it lies outside
    the noise band.

    The band allows for all pairs of so many evaluations (Bonferroni): the best one was picked for
    its low loss, so that any of them may be the other half of the pair.
    """
    sure = _chance(value, error, rows)
    pairs = max(1, evaluations * (evaluations + 1) // 2)
    return min(_SUREST, sure) if 1 - sure < ALARM / pairs else 0.0


def _chance(value: float, error: float, rows: int) -> float:
    if error <= 0:
        # Two equal evaluations, or one row.
        return 0.5 if value == 0 else float(value > 0)
    freedom, t = max(1, rows - 1), value / error
    z = math.sqrt(freedom * math.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return statistics.NormalDist().cdf(math.copysign(z, t))
