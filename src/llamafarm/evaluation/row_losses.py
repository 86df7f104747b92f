"""The loss of every row of a dataset, and how sure a mean over them is.

Rows are what was drawn from the world; the tokens of one row are not independent of each other. So
a loss per token is a ratio of two sums over rows, and its standard error is that of such a ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowLosses:
    """losses: mean over the trained tokens of each row, in nats; tokens: how many they are;
    correct: how many of them are ranked first (empty: not counted).
    """

    losses: tuple[float, ...]
    tokens: tuple[int, ...]
    correct: tuple[int, ...] = ()

    @property
    def is_finite(self) -> bool:
        """Whether every loss is a number."""
        return all(map(math.isfinite, self.losses))

    @property
    def loss(self) -> float:
        """Mean over all tokens."""
        total = sum(loss * n for loss, n in zip(self.losses, self.tokens, strict=True))
        return total / sum(self.tokens)

    @property
    def accuracy(self) -> float | None:
        """Share of all tokens that are ranked first; None where they were not counted."""
        return sum(self.correct) / sum(self.tokens) if self.correct else None

    def of_rows(self, rows: Sequence[int]) -> RowLosses:
        """Only these rows, in this order."""
        return RowLosses(
            tuple(self.losses[row] for row in rows),
            tuple(self.tokens[row] for row in rows),
            tuple(self.correct[row] for row in rows) if self.correct else (),
        )

    @property
    def standard_error(self) -> float | None:
        """Of the mean loss per token; None for fewer than two rows."""
        return mean_and_error(self.losses, self.tokens)[1]

    def change_from(self, before: RowLosses) -> tuple[float, float | None]:
        """Mean difference per token to the losses of the same rows before, and its standard error:
        pairs, so that what makes a row easy or hard does not count as noise.

        Raises ValueError when they are not of the same rows.
        """
        if self.tokens != before.tokens:
            raise ValueError("the losses are of different rows")
        differences = [a - b for a, b in zip(self.losses, before.losses, strict=True)]
        return mean_and_error(differences, self.tokens)


def mean_and_error(values: Sequence[float], weights: Sequence[int]) -> tuple[float, float | None]:
    """Weighted mean and its standard error, each value being one draw: the linearised variance of a
    ratio estimator (Cochran, Sampling Techniques, 3rd ed., equation 6.13). The error is None
    for fewer than two values.
    """
    total, count = sum(weights), len(values)
    mean = sum(w * v for w, v in zip(weights, values, strict=True)) / total
    if count < 2:
        return mean, None
    squares = sum((w * (v - mean)) ** 2 for w, v in zip(weights, values, strict=True))
    return mean, math.sqrt(squares * count / (count - 1)) / total
