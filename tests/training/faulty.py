"""Faults at the seams of the loop: an allocator that refuses, a disk that is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from llamafarm.models.packed import PackedRow, label_logits
from llamafarm.training import keeper
from llamafarm.training.backends.pytorch import gradients
from llamafarm.training.checkpoint import SaveFailed, write_checkpoint


@dataclass
class SmallMemory:
    """An allocator that refuses rows of more than `tokens` tokens that need their activations kept.

    recomputed_tokens: what fits with gradient checkpointing (None: the same); backward: it is the
    backward pass that finds no room. rows: what was given to it, in order.
    """

    tokens: int
    recomputed_tokens: int | None = None
    backward: bool = False
    rows: list[PackedRow] = field(default_factory=list)
    refused: int = 0

    def label_logits(self, model: Any, row: PackedRow, *, packed: bool) -> Tensor:
        self.rows.append(row)
        logits = label_logits(model, row, packed=packed)
        if row.num_computed <= self._room(model):
            return logits
        self.refused += 1
        if self.backward:
            return _Refuses.apply(logits)
        raise refusal()

    def _room(self, model: Any) -> int:
        recomputes = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        return self.recomputed_tokens if recomputes and self.recomputed_tokens else self.tokens

    @property
    def sizes(self) -> list[int]:
        return [row.num_computed for row in self.rows]


class _Refuses(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        raise refusal()


def refusal() -> RuntimeError:
    """In the words of torch's CPU allocator."""
    return RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
    )


def small_memory(monkeypatch: pytest.MonkeyPatch, tokens: int, **room: Any) -> SmallMemory:
    """Give the training steps an allocator with room for so many tokens at once."""
    memory = SmallMemory(tokens, **room)
    monkeypatch.setattr(gradients, "label_logits", memory.label_logits)
    return memory


def failing_saves(
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[[int], bool],
    error: Callable[[int], Exception] = lambda step: SaveFailed(f"checkpoint-{step}: disk full"),
) -> list[int]:
    """Let saves of some steps fail; the steps of all tries."""
    tries: list[int] = []

    def write(directory: Any, step: int, files: Any, **more: Any) -> Any:
        tries.append(step)
        if fails(step):
            raise error(step)
        return write_checkpoint(directory, step, files, **more)

    monkeypatch.setattr(keeper, "write_checkpoint", write)
    return tries
