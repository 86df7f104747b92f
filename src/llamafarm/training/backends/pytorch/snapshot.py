"""What a checkpoint holds, and how it is put back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from llamafarm.errors import RunError
from llamafarm.training.backends.pytorch.model import TrainableModel
from llamafarm.training.backends.pytorch.optimizer import put_schedule_back
from llamafarm.training.backends.pytorch.tensors import (
    MAX_SHARD_BYTES,
    decode,
    encode,
    join_optimizer_state,
    model_files,
    named_parameters_of,
    split_optimizer_state,
)
from llamafarm.training.checkpoint import STATE_FILE
from llamafarm.training.state import LoopState

OPTIMIZER_FILE = "optimizer.safetensors"


class Snapshot:
    """The moving parts of a run, written to and read from a checkpoint.

    identity: what must be the same for a checkpoint to belong to this run.
    """

    def __init__(
        self,
        trainable: TrainableModel,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        scaler: Any,
        identity: Mapping[str, str],
    ) -> None:
        self._trainable, self._optimizer = trainable, optimizer
        self._scheduler, self._scaler = scheduler, scaler
        self._identity = dict(identity)
        self._names = named_parameters_of(optimizer, trainable.model)

    resume_only = (OPTIMIZER_FILE, STATE_FILE)

    def model_files(self) -> Iterator[tuple[str, bytes]]:
        """What makes a model: the files a finished one needs, one in memory at a time."""
        yield from self._trainable.static_files.items()
        weights = self._trainable.weights()
        sizes = [t.nbytes for t in weights.values()]
        _require_memory(max([*sizes, min(sum(sizes), MAX_SHARD_BYTES)]))
        yield from model_files(weights, self._trainable.stem)

    def files(self, state: LoopState) -> Iterator[tuple[str, bytes]]:
        """Everything that an exact resume needs."""
        yield from self.model_files()
        _require_memory(sum(t.nbytes for t in self._optimizer_tensors()))
        tensors, values = split_optimizer_state(self._optimizer, self._names)
        yield OPTIMIZER_FILE, tensors
        record = {
            "global_step": state.step,
            "best_metric": state.best_metric,
            "best_global_step": state.best_step,
            "loop": {name: encode(value) for name, value in state.to_json().items()},
            "optimizer": values,
            "scheduler": encode(self._scheduler.state_dict()),
            "scaler": None if self._scaler is None else encode(self._scaler.state_dict()),
            "identity": self._identity,
        }
        yield STATE_FILE, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()

    def num_bytes(self) -> int:
        """Size of a checkpoint, but for what is small."""
        static = sum(len(data) for data in self._trainable.static_files.values())
        tensors = [*self._trainable.weights().values(), *self._optimizer_tensors()]
        return static + sum(t.nbytes for t in tensors)

    def non_finite(self) -> tuple[str, ...]:
        """Names of trained weights and optimizer entries that hold a NaN or an Infinity."""
        named = dict(self._trainable.weights())
        for index, entries in enumerate(self._optimizer.state.values()):
            named |= {
                f"optimizer state {index}, {key}": value
                for key, value in entries.items()
                if isinstance(value, Tensor)
            }
        finite = {n: torch.isfinite(t).all() for n, t in named.items() if t.is_floating_point()}
        return tuple(name for name, flag in finite.items() if not bool(flag))

    def restore(self, path: Path) -> LoopState:
        """Put a checkpoint back. Learning rate, betas and decay stay this plan's, which are others
        only in a resume that was asked for anyway. Raises RunError when it does not fit this model.
        """
        try:
            return self._restore(path)
        except (LookupError, TypeError, ValueError, AttributeError, SafetensorError) as error:
            raise RunError(
                f"{path} does not hold the state of this run ({type(error).__name__}: {error})",
                hint="remove it: --resume then goes on from the one before",
            ) from error

    def _restore(self, path: Path) -> LoopState:
        saved: dict[str, Any] = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        self._trainable.load_weights(path)
        planned = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in self._optimizer.param_groups
        ]
        join_optimizer_state(
            self._optimizer, (path / OPTIMIZER_FILE).read_bytes(), saved["optimizer"]
        )
        self._scheduler.load_state_dict(decode(saved["scheduler"]))
        for group, values in zip(self._optimizer.param_groups, planned, strict=True):
            group.update(values)
        put_schedule_back(self._scheduler)
        if saved["scaler"] is not None and self._scaler is not None:
            self._scaler.load_state_dict(decode(saved["scaler"]))
        return LoopState.from_json({k: decode(v) for k, v in saved["loop"].items()})

    def _optimizer_tensors(self) -> Iterator[Tensor]:
        for entries in self._optimizer.state.values():
            yield from (value for value in entries.values() if isinstance(value, Tensor))


def _require_memory(num_bytes: int) -> None:
    """Raises MemoryError where a file of this size cannot be made: safetensors, which holds it
    twice, would end the process. Asked for without being touched.
    """
    bytes(2 * num_bytes)
