"""What a run knows about itself between two steps, besides weights and optimizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class LoopState:
    """The loop's only mutable numbers; all of them are in every checkpoint.

    step: optimizer steps done; evaluated_step: the last one that was evaluated (-1: none);
    seconds: of all processes of this run so far;
    loss_sum, loss_tokens, window_*: since the last `step` event;
    token_budget: tokens of a micro-batch that memory was last short for, halved (0: never short);
    eval_rows: rows of an evaluation batch after memory was short (0: as planned);
    activations_recomputed: gradient checkpointing was switched on because memory was short;
    recent_losses, recent_norms: of the last steps, to compare the next one with (norms as
    logarithms).
    """

    step: int = 0
    epoch: float = 0.0
    tokens: int = 0
    trained_tokens: int = 0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    window_tokens: int = 0
    window_seconds: float = 0.0
    window_data_seconds: float = 0.0
    evaluated_step: int = -1
    base_eval_loss: float | None = None
    eval_loss: float | None = None
    best_step: int = 0
    best_metric: float | None = None
    best_eval_loss: float | None = None
    evaluations_without_improvement: int = 0
    stopped_early: bool = False
    nonfinite_steps: int = 0
    overflowed_steps: int = 0
    token_budget: int = 0
    eval_rows: int = 0
    activations_recomputed: bool = False
    recent_losses: list[float] = field(default_factory=list)
    recent_norms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def begin_window(self) -> None:
        """A step event was sent: what it tells of starts anew."""
        self.loss_sum, self.loss_tokens = 0.0, 0
        self.window_tokens, self.window_seconds, self.window_data_seconds = 0, 0.0, 0.0

    def to_json(self) -> dict[str, Any]:
        """For trainer_state.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LoopState:
        """From trainer_state.json; what an earlier version did not write is as at the start."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
