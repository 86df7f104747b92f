"""Loss of a model on a dataset: per trained token over the whole set, so batch layout cannot move
it.

Logits exist for one micro-batch at a time and only where a prediction is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from llamafarm.data.tokenized import TokenRows
from llamafarm.errors import RunError
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.hardware.out_of_memory import is_out_of_memory, release_memory
from llamafarm.models.packed import label_logits, pack, token_losses


def evaluate_loss(
    model: nn.Module,
    rows: TokenRows,
    *,
    batch_size: int,
    packed: bool,
    device: torch.device | str,
    on_batch: Callable[[int], None] | None = None,
    on_short_memory: Callable[[int, str], None] | None = None,
) -> LossResult:
    """Evaluate every row; the model is left in the mode it was found in.

    on_batch is called with the number of rows done; whatever it raises ends the evaluation. Where
    memory is short the same rows are done again in halves, and on_short_memory is called with the
    rows a batch has from then on and what the allocator said; what it gives up is free for the next
    try. Raises RunError when one row alone does not fit twice.
    """
    was_training = model.training
    model.eval()
    size = batch_size if packed else 1
    parts: list[_Part] = []
    start, alone = 0, -1
    try:
        with torch.no_grad():
            while start < len(rows):
                indices = range(start, min(start + size, len(rows)))
                part = _evaluate_batch(model, rows, indices, packed=packed, device=device)
                if isinstance(part, str):
                    if alone == start:
                        raise _row_too_large(rows, start, part)
                    alone = start if len(indices) == 1 else -1
                    size = len(indices) // 2 or size
                    if on_short_memory is not None:
                        on_short_memory(size, part)
                    release_memory()
                    continue
                parts.append(part)
                start = indices.stop
                if on_batch is not None:
                    on_batch(start)
    finally:
        model.train(was_training)
    return LossResult(
        loss_sum=sum(part.loss_sum for part in parts),
        correct=sum(right for part in parts for right in part.row_correct),
        trained_tokens=sum(part.trained_tokens for part in parts),
        by_row=RowLosses(
            tuple(loss for part in parts for loss in part.row_losses),
            tuple(count for part in parts for count in part.row_tokens),
            tuple(right for part in parts for right in part.row_correct),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """What one batch adds to a LossResult."""

    loss_sum: float
    trained_tokens: int
    row_losses: tuple[float, ...]
    row_tokens: tuple[int, ...]
    row_correct: tuple[int, ...]


def _evaluate_batch(
    model: nn.Module,
    rows: TokenRows,
    indices: Sequence[int],
    *,
    packed: bool,
    device: torch.device | str,
) -> _Part | str:
    """The sums of some rows; what the allocator said where they do not fit into memory."""
    try:
        row = pack(rows, indices, share_prefix=packed).to(device)
        logits = label_logits(model, row, packed=packed)
        losses = token_losses(logits, row.labels).double()
        counts = list(row.label_counts)
        means = [float(part.mean()) for part in torch.split(losses, counts)]
        hits = logits.argmax(dim=-1) == row.labels
        return _Part(
            float(losses.sum()),
            row.num_labels,
            tuple(means),
            tuple(counts),
            tuple(int(part.sum()) for part in torch.split(hits, counts)),
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return str(error).strip()


def _row_too_large(rows: TokenRows, row: int, said: str) -> RunError:
    length = len(rows.input_ids(row))
    return RunError(
        f"out of memory: {rows.source(row)} does not fit even alone ({length:,} tokens) when it is "
        f"evaluated; {said[:160]}",
        hint="set a smaller max_seq_length, leave that row out, or take a smaller base model",
    )
