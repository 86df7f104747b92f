"""Steps that stand out of the run's own history."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

WINDOW_STEPS = 64
_ENOUGH_STEPS = 16
# A normal variable goes beyond this once in 10^9; sound runs of four rows a step stay below 3.
_DEVIATIONS = 6.0
# The median absolute deviation of a normal variable is this part of its standard deviation.
_MAD_TO_SIGMA = 1.4826


def stands_out(history: Sequence[float], value: float, *, least: float) -> bool:
    """Whether a value lies above the median of those before it by 6 robust standard deviations:
    1.4826 times the median absolute deviation (Rousseeuw and Croux 1993), taken as `least` where it
    is smaller.

    False while there are fewer than 16 values to compare with.
    """
    if len(history) < _ENOUGH_STEPS:
        return False
    median = statistics.median(history)
    deviation = _MAD_TO_SIGMA * statistics.median(abs(v - median) for v in history)
    return value > median + _DEVIATIONS * max(deviation, least)


def remember(history: list[float], value: float) -> None:
    """Add a finite value and forget what is older than the window."""
    if math.isfinite(value):
        history.append(value)
        del history[:-WINDOW_STEPS]


def usual(history: Sequence[float]) -> float:
    """What a value is compared with: the median."""
    return statistics.median(history)
