"""What a run knows about itself between two steps, besides weights and optimizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class LoopState:
    """The loop's only mutable numbers; all of them are in every checkpoint.

    step: optimizer steps done; evaluated_step, saved_step: the last step for which that was done
    (-1: never);
    seconds: of all processes of this run so far; train_seconds: of them, spent in optimizer steps;
    loss_sum, loss_tokens, window_*: since the last `step` event.
    """

    step: int = 0
    epoch: float = 0.0
    tokens: int = 0
    trained_tokens: int = 0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    window_tokens: int = 0
    window_seconds: float = 0.0
    train_loss: float | None = None
    evaluated_step: int = -1
    base_eval_loss: float | None = None
    eval_loss: float | None = None
    best_step: int = 0
    best_metric: float | None = None
    best_eval_loss: float | None = None
    evaluations_without_improvement: int = 0
    stopped_early: bool = False
    nonfinite_steps: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For trainer_state.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LoopState:
        """From trainer_state.json."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})
