"""Steps that stand out of the run's own history."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

WINDOW_STEPS = 64
_ENOUGH_STEPS = 16
# Few enough that a steady climb stays within its own differences.
_LEVEL_STEPS = 8
# A normal variable goes beyond this once in 10^9; sound runs of four rows a step stay below 3.
_DEVIATIONS = 6.0
# The median absolute deviation of a normal variable is this part of its standard deviation.
_MAD_TO_SIGMA = 1.4826


def stands_out(history: Sequence[float], value: float, *, least: float) -> bool:
    """Whether a value lies above what is usual by 6 robust standard deviations, taken as `least`
    where they are smaller: 1.4826 times the median absolute deviation (Rousseeuw and Croux 1993),
    here of the differences between neighbours over the root of 2 (von Neumann 1941), so that a
    loss that falls is not taken for noise.

    False while there are fewer than 16 values to compare with.
    """
    if len(history) < _ENOUGH_STEPS:
        return False
    differences = (abs(b - a) for a, b in itertools.pairwise(history))
    deviation = _MAD_TO_SIGMA * statistics.median(differences) / math.sqrt(2)
    return value > usual(history) + _DEVIATIONS * max(deviation, least)


def remember(history: list[float], value: float) -> None:
    """Add a finite value and forget what is older than the window."""
    if math.isfinite(value):
        history.append(value)
        del history[:-WINDOW_STEPS]


def usual(history: Sequence[float]) -> float:
    """What a value is compared with: the median, of all or of the last 8, whichever is higher."""
    return max(statistics.median(history), statistics.median(history[-_LEVEL_STEPS:]))
