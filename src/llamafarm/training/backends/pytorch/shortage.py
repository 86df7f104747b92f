"""What is made smaller when memory is short, so that the run goes on with the same numbers."""

from __future__ import annotations

from llamafarm.errors import RunError
from llamafarm.monitoring.events import OutOfMemoryEvent
from llamafarm.training.backends.pytorch.batches import StepBatch
from llamafarm.training.backends.pytorch.gradients import MemoryShortage
from llamafarm.training.backends.pytorch.model import TrainableModel
from llamafarm.training.job import TrainingJob
from llamafarm.training.state import LoopState

_RECOMPUTED = "activations are computed twice instead of being kept (gradient checkpointing)"


class MemoryRelief:
    """Two ways: fewer conversations in a micro-batch, and gradient checkpointing.

    Neither changes the gradient of a step. With dropout or embedding noise, fewer conversations
    draw other random numbers and recomputing draws the same ones, so that comes first then.
    draws_numbers: whether the forward pass does.
    """

    def __init__(self, job: TrainingJob, trainable: TrainableModel, *, draws_numbers: bool) -> None:
        self._job, self._trainable = job, trainable
        self._draws_numbers = draws_numbers

    def again(self, state: LoopState) -> None:
        """Do in a resumed run what the state says was done."""
        if state.activations_recomputed:
            self._trainable.recompute_activations()

    def reduce(
        self, batch: StepBatch, shortage: MemoryShortage, state: LoopState
    ) -> OutOfMemoryEvent:
        """Make something smaller, remember it in the state, and say what. Raises RunError that
        names the row when one alone does not fit and nothing is left.
        """
        group, row = batch.groups[shortage.micro_batch], batch.rows[shortage.micro_batch]
        divisible = len(group) > 1
        if (self._draws_numbers or not divisible) and self._recompute(state):
            action = _RECOMPUTED
        elif divisible:
            state.token_budget = row.num_computed // 2
            action = (
                f"micro-batches of at most {state.token_budget:,} tokens from now on, of the same "
                "rows and with the same weight"
            )
            if self._draws_numbers:
                action += "; dropout draws other numbers"
        else:
            raise self._row_too_large(group[0], row.num_computed, shortage.said, state)
        return OutOfMemoryEvent(
            step=batch.step, during="step", tokens=row.num_computed, action=action
        )

    def _recompute(self, state: LoopState) -> bool:
        """Switch gradient checkpointing on; False where it is on already, or not to be had."""
        if self._job.plan.gradient_checkpointing or state.activations_recomputed:
            return False
        state.activations_recomputed = self._trainable.recompute_activations()
        return state.activations_recomputed

    def _row_too_large(self, index: int, tokens: int, said: str, state: LoopState) -> RunError:
        recomputed = self._job.plan.gradient_checkpointing or state.activations_recomputed
        way = (
            "with gradient checkpointing"
            if recomputed
            else "and this architecture has no gradient checkpointing"
        )
        return RunError(
            f"out of memory on {self._job.plan.device.device}: "
            f"{self._job.data.train.source(index)} does not fit even alone ({tokens:,} tokens), "
            f"{way}; {said[:160]}",
            hint="set a smaller max_seq_length, leave that row out, take a smaller base model, or "
            "load it in 4 bits (method.type: qlora)",
        )
