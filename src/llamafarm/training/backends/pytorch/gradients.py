"""The gradients of one optimizer step: all its micro-batches, or none of them.

Nothing here changes a weight, so a step can be given up, or done again in smaller parts, at any
micro-batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llamafarm.hardware.out_of_memory import is_out_of_memory
from llamafarm.models.packed import PackedRow, label_logits, token_losses
from llamafarm.training.backends.pytorch.batches import StepBatch
from llamafarm.training.backends.pytorch.model import EmbeddingNoise
from llamafarm.training.order import step_seed


class StepGivenUp(Exception):  # noqa: N818  # nothing went wrong
    """The step is not finished, and its gradients are gone."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """loss_sum: over all trained tokens; norm: of all gradients before clipping; batch: the layout
    that they were made in; losses: [K] of each of its micro-batches.
    """

    loss_sum: float
    norm: float
    batch: StepBatch
    losses: tuple[Tensor, ...]

    @property
    def finite(self) -> bool:
        """Whether the weights may be moved by them."""
        return math.isfinite(self.loss_sum) and math.isfinite(self.norm)

    def rows_by_loss(self) -> tuple[int, ...]:
        """Dataset rows of the step, the one with the largest mean loss first."""
        means: dict[int, float] = {}
        for group, row, losses in zip(self.batch.groups, self.batch.rows, self.losses, strict=True):
            parts = torch.split(losses, list(row.label_counts))
            means |= {i: float(part.mean()) for i, part in zip(group, parts, strict=True)}
        return tuple(sorted(means, key=lambda index: means[index], reverse=True))


@dataclass(frozen=True, slots=True)
class MemoryShortage:
    """The allocator refused. micro_batch: the one that did not fit; said: its words."""

    micro_batch: int
    said: str


class GradientMaker:
    """Forward and backward over the micro-batches of a step, at the random numbers of that step."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        accelerator: Any,
        *,
        parameters: list[nn.Parameter],
        seed: int,
        packed: bool,
        label_smoothing: float,
        max_grad_norm: float,
        noise: EmbeddingNoise | None,
    ) -> None:
        self._model, self._optimizer, self._accelerator = model, optimizer, accelerator
        self._parameters = parameters
        self._seed = seed
        self._packed = packed
        self._label_smoothing = label_smoothing
        self._max_norm = max_grad_norm or math.inf  # 0 measures without clipping
        self._noise = noise

    def make(
        self, batch: StepBatch, give_up: Callable[[float], bool] = lambda seconds: False
    ) -> Gradients | MemoryShortage:
        """Leave the gradients of the whole step in the parameters, clipped.

        give_up is asked before each micro-batch but the first, with the seconds that the rest will
        take; where it says so, StepGivenUp is raised.
        """
        torch.manual_seed(step_seed(self._seed, batch.step))
        self._optimizer.zero_grad()
        losses: list[Tensor] = []
        started = time.monotonic()
        for number, row in enumerate(batch.rows):
            if number:
                each = (time.monotonic() - started) / number
                if give_up(each * (len(batch.rows) - number)):
                    self.drop()
                    raise StepGivenUp
            shortage = self._add(number, row, batch.num_labels, losses)
            if shortage is not None:
                return shortage
        loss_sum = sum(float(part.double().sum()) for part in losses)
        norm = math.nan
        if math.isfinite(loss_sum):  # a gradient scaler that has divided once must see a step
            norm = float(self._accelerator.clip_grad_norm_(self._parameters, self._max_norm))
        return Gradients(loss_sum, norm, batch, tuple(losses))

    def drop(self) -> None:
        """Forget the gradients, and the memory they take."""
        self._optimizer.zero_grad()

    def rows_at_fault(self, batch: StepBatch, alone: Callable[[int], PackedRow]) -> tuple[int, ...]:
        """Which dataset rows of a non-finite step are so by themselves; none where only their sum
        is, or where it does not happen again. Drops the gradients.
        """
        return tuple(
            index for index in batch.indices if not self._finite_alone(batch, alone(index))
        )

    def _finite_alone(self, batch: StepBatch, row: PackedRow) -> bool:
        if not row.num_labels:
            return True
        torch.manual_seed(step_seed(self._seed, batch.step))
        self.drop()
        losses: list[Tensor] = []
        if self._add(0, row, batch.num_labels, losses) is not None:
            return True  # it did not fit into memory: nothing is known of it
        finite = [torch.isfinite(losses[0]).all()]
        if self._accelerator.scaler is None:  # what a scaler has enlarged may overflow by that
            finite += [torch.isfinite(p.grad).all() for p in self._parameters if p.grad is not None]
        self.drop()
        return bool(torch.stack(finite).all())

    def _add(
        self, number: int, row: PackedRow, num_labels: int, losses: list[Tensor]
    ) -> MemoryShortage | None:
        """Add one micro-batch's part of the step's mean loss to the gradients."""
        try:
            row = row.to(self._accelerator.device)
            if self._noise is not None:
                self._noise.set_lengths(_token_lengths(row.documents, row.prefix_length))
            logits = label_logits(self._model, row, packed=self._packed)
            part = token_losses(logits, row.labels, label_smoothing=self._label_smoothing)
            self._accelerator.backward(part.sum() / num_labels)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return MemoryShortage(number, str(error).strip())
        losses.append(part.detach())
        return None


def _token_lengths(documents: tuple[tuple[int, int], ...], prefix: int) -> Tensor:
    """For every position of a packed row, the length of the conversation it belongs to: [T]."""
    lengths = [torch.full((end - start,), float(end - start + prefix)) for start, end in documents]
    return torch.cat([lengths[0][:1].expand(prefix), *lengths])
