"""What an evaluation measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llamafarm.evaluation.row_losses import RowLosses


@dataclass(frozen=True, slots=True)
class LossResult:
    """Sums over a dataset. loss in nats per trained token; accuracy: share of trained tokens ranked
    first.

    by_row: every row's mean loss and its trained tokens, in order.
    """

    loss_sum: float
    correct: int
    trained_tokens: int
    by_row: RowLosses

    @classmethod
    def of_rows(cls, by_row: RowLosses) -> LossResult:
        """From the mean loss of every row. by_row: with the tokens that are ranked first."""
        return cls(
            loss_sum=by_row.loss * sum(by_row.tokens),
            correct=sum(by_row.correct),
            trained_tokens=sum(by_row.tokens),
            by_row=by_row,
        )

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.by_row.losses)

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood per trained token."""
        return self.loss_sum / self.trained_tokens

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def accuracy(self) -> float:
        """Share of trained tokens that the model ranks first."""
        return self.correct / self.trained_tokens
