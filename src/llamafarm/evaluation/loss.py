"""Loss of a model on a dataset: per trained token over the whole set, so batch layout cannot move
it.

Logits exist for one micro-batch at a time and only where a prediction is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from llamafarm.data.tokenized import TokenRows
from llamafarm.models.packed import label_logits, pack, token_losses


@dataclass(frozen=True, slots=True)
class LossResult:
    """Sums over a dataset. loss in nats per trained token; accuracy: share of trained tokens ranked
    first.

    row_losses: mean loss of each row, in order.
    """

    loss_sum: float
    correct: int
    trained_tokens: int
    row_losses: tuple[float, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.row_losses)

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


def evaluate_loss(
    model: nn.Module,
    rows: TokenRows,
    *,
    batch_size: int,
    packed: bool,
    device: torch.device | str,
    on_batch: Callable[[int], None] | None = None,
) -> LossResult:
    """Evaluate every row; the model is left in the mode it was found in.

    on_batch is called with the number of rows done; whatever it raises ends the evaluation.
    """
    was_training = model.training
    model.eval()
    step = batch_size if packed else 1
    loss_sum, correct, trained_tokens = 0.0, 0, 0
    row_losses: list[float] = []
    try:
        with torch.no_grad():
            for start in range(0, len(rows), step):
                indices = range(start, min(start + step, len(rows)))
                row = pack(rows, indices, share_prefix=packed).to(device)
                logits = label_logits(model, row, packed=packed)
                losses = token_losses(logits, row.labels).double()
                loss_sum += float(losses.sum())
                parts = torch.split(losses, list(row.label_counts))
                row_losses += [float(part.mean()) for part in parts]
                correct += int((logits.argmax(dim=-1) == row.labels).sum())
                trained_tokens += row.num_labels
                if on_batch is not None:
                    on_batch(indices.stop)
    finally:
        model.train(was_training)
    return LossResult(loss_sum, correct, trained_tokens, tuple(row_losses))
