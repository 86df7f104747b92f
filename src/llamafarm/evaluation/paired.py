"""Two models on the same rows: how much a score differs, how sure that is, and what it comes to.

Rows are what was drawn from the world, so rows are what is drawn again: a bootstrap of the pairs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.monitoring.comparison import PairedChange, Verdict

RESAMPLES = 4000
INTERVAL = 0.95
# All of five rows move to one side by chance in 2 of 32 cases, all of six in 2 of 64: with fewer
# than six there is no interval of 95 %.
FEWEST_MOVED = 6
# In nats a token: what the order of a sum in float32 changes.
LOSS_ROUNDING = 1e-6
# Of more rows, every so many are drawn together: groups of rows are draws from the world too.
_MOST_UNITS = 4000
_DRAWN_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class RowScores:
    """One score of one model, row by row. weights: tokens of each row where the score is per token;
    the score over all rows is the weighted mean.
    """

    values: Sequence[float]
    weights: Sequence[int]

    @classmethod
    def of_rows(cls, values: Sequence[float]) -> RowScores:
        """Every row counts the same."""
        return cls(values, [1] * len(values))

    @classmethod
    def losses(cls, rows: RowLosses) -> RowScores:
        """In nats per token."""
        return cls(rows.losses, rows.tokens)

    @classmethod
    def accuracies(cls, rows: RowLosses) -> RowScores:
        """Share of the tokens that are ranked first; needs `rows.correct`."""
        shares = [right / n for right, n in zip(rows.correct, rows.tokens, strict=True)]
        return cls(shares, rows.tokens)


def compare_losses(ours: RowLosses, theirs: RowLosses) -> PairedChange:
    """By loss per token: less is better."""
    return paired_change(
        RowScores.losses(ours),
        RowScores.losses(theirs),
        greater_is_better=False,
        rounding=LOSS_ROUNDING,
    )


def compare_accuracies(ours: RowLosses, theirs: RowLosses) -> PairedChange:
    """By the share of tokens that are ranked first."""
    return paired_change(
        RowScores.accuracies(ours), RowScores.accuracies(theirs), greater_is_better=True
    )


def paired_change(
    ours: RowScores, theirs: RowScores, *, greater_is_better: bool, rounding: float = 1e-12
) -> PairedChange:
    """Our score over all rows minus theirs, with a bootstrap interval over the pairs of rows.

    A row whose values differ by no more than `rounding` is the same, and adds nothing where the
    weights are the same too. The verdict is a difference where the interval leaves out 0. Raises
    ValueError where there is no row, the rows are not as many, or a value is not finite.
    """
    a, b = np.asarray(ours.values, np.float64), np.asarray(theirs.values, np.float64)
    v, w = np.asarray(ours.weights, np.float64), np.asarray(theirs.weights, np.float64)
    if not 0 < len(a) == len(b) == len(v) == len(w):
        raise ValueError("the scores are of different rows")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a score is not finite")
    same = np.abs(a - b) <= rounding
    a = np.where(same, b, a)
    gains = (a > b) if greater_is_better else (a < b)
    better, unchanged = int(gains.sum()), int(same.sum())
    worse = len(a) - better - unchanged
    sums = np.stack([v * a, v, w * b, w])
    change = float(_difference(sums.sum(axis=1)))
    if better + worse < FEWEST_MOVED:
        low = high = 0.0 if better + worse == 0 and np.array_equal(v, w) else None
    else:
        low, high = _interval(sums)
    return PairedChange(
        change=change,
        low=low,
        high=high,
        better=better,
        worse=worse,
        same=unchanged,
        verdict=_verdict(low, high, greater_is_better),
    )


def _verdict(low: float | None, high: float | None, greater_is_better: bool) -> Verdict:
    if low is None or high is None:
        return "too few rows"
    if low <= 0 <= high:
        return "no difference"
    return "better" if (low > 0) == greater_is_better else "worse"


def _difference(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """sums: [4, …], of value times weight and of weight, ours and theirs."""
    result: npt.NDArray[np.float64] = sums[0] / sums[1] - sums[2] / sums[3]
    return result


def _interval(sums: npt.NDArray[np.float64]) -> tuple[float, float]:
    """sums: [4, rows]. The bootstrap's percentiles, a little further out for few rows."""
    rows = sums.shape[1]
    units = min(rows, _MOST_UNITS)
    if units < rows:
        group = np.arange(rows) % units
        sums = np.stack([np.bincount(group, weights=part, minlength=units) for part in sums])
    random = np.random.default_rng(0)
    found = np.empty(RESAMPLES)
    at_once = max(1, _DRAWN_AT_ONCE // units)
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        drawn = random.integers(0, units, size=(count, units))
        found[start : start + count] = _difference(sums[:, drawn].sum(axis=2))
    tail = _tail(units)
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def _tail(units: int) -> float:
    """The share of resamples to leave out on each side: Hesterberg's expanded percentile interval
    (The American Statistician 69, 2015, section 5.3). Without it, an interval from 20 rows would
    hold the truth in 92 % of cases.

    Of the t quantile, the inverse of Wallace's approximation (1959): within 0.2 % from 5 degrees of
    freedom on.
    """
    z, freedom = statistics.NormalDist().inv_cdf((1 + INTERVAL) / 2), units - 1
    scaled = z * (8 * freedom + 3) / (8 * freedom + 1)
    t = math.sqrt(freedom * math.expm1(scaled * scaled / freedom))
    return statistics.NormalDist().cdf(-t * math.sqrt(units / freedom))
