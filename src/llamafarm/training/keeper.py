"""The checkpoints of a run while it goes on: when, which stay, and what becomes the final model.

A disk that refuses a checkpoint does not end the run: it goes on, says so, and tries again soon.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from llamafarm.errors import RunError, listed
from llamafarm.files import staged_directory, write_bytes
from llamafarm.hardware.out_of_memory import is_out_of_memory, release_memory
from llamafarm.monitoring.events import (
    BestLostEvent,
    CheckpointEvent,
    MessageEvent,
    OutOfMemoryEvent,
    SaveFailedEvent,
    SavingEvent,
)
from llamafarm.training.checkpoint import (
    Checkpoint,
    SaveFailed,
    WrittenCheckpoint,
    checkpoint_files,
    checkpoint_of,
    fault_of_step,
    rotate,
    save_failed,
    write_checkpoint,
)
from llamafarm.training.job import TrainingJob
from llamafarm.training.model_card import model_card
from llamafarm.training.state import LoopState

_SECONDS_UNTIL_SAVED_AGAIN = 60.0


class Snapshot(Protocol):
    """What a backend puts into a checkpoint, and how it goes back."""

    @property
    def resume_only(self) -> tuple[str, ...]:
        """Names of the files that a finished model does not need."""
        ...

    def files(self, state: LoopState) -> Iterator[tuple[str, bytes | memoryview]]:
        """Everything that a resume needs. Raises OSError where it is not there."""
        ...

    def model_files(self) -> Iterator[tuple[str, bytes | memoryview]]:
        """What makes a model."""
        ...

    def num_bytes(self) -> int:
        """Size of a checkpoint, but for what is small."""
        ...

    def non_finite(self) -> tuple[str, ...]:
        """Names of weights that hold a NaN or an Infinity."""
        ...

    def restore(self, path: Path) -> LoopState:
        """Put a checkpoint back. Raises RunError when it does not fit."""
        ...


@dataclass(frozen=True, slots=True)
class _Best:
    """The best step whose weights are on disk."""

    step: int = 0
    metric: float | None = None
    eval_loss: float | None = None

    @classmethod
    def of(cls, state: LoopState) -> _Best:
        return cls(state.best_step, state.best_metric, state.best_eval_loss)


@dataclass(frozen=True, slots=True)
class _NotWritten:
    """why: for the reader; short_memory: whether it may work without the gradients."""

    why: str
    short_memory: bool


class CheckpointKeeper:
    """One run's checkpoints. drop_gradients: gives back their memory when a save needs it.

    saved_step: of the newest checkpoint that is known to be whole; 0: there is none.
    """

    def __init__(
        self, job: TrainingJob, snapshot: Snapshot, drop_gradients: Callable[[], None]
    ) -> None:
        self._job, self._snapshot, self._drop_gradients = job, snapshot, drop_gradients
        self._directory = job.directory.checkpoints
        self._kept_best = _Best()
        self._again_at = math.inf
        self.saved_step = 0

    def restore(self, checkpoint: Checkpoint) -> LoopState:
        """Put a checkpoint back. Where the best one that it tells of is damaged and wanted, none
        counts.
        """
        state = self._snapshot.restore(checkpoint.path)
        self.saved_step = state.step
        if state.best_step and (fault := fault_of_step(self._directory, state.best_step)):
            self._lose_best(state, fault, _Best())
        self._kept_best = _Best.of(state)
        return state

    def due(self, state: LoopState, *, last: bool) -> bool:
        """Whether to save now. last: no step follows."""
        if not state.step:
            return False
        if state.step == self.saved_step:  # again, where it was found to be the best since then
            return state.best_step == state.step != self._kept_best.step
        scheduled = self._job.plan.saving.every.due(state.step)
        owed = time.monotonic() >= self._again_at
        return scheduled or owed or last or state.best_step == state.step

    def save(self, state: LoopState, reason: str) -> bool:
        """Write a checkpoint of this step; whether it is on disk. Raises RunError when the weights
        are not finite.
        """
        written = self._write(state)
        if isinstance(written, _NotWritten):
            if written.short_memory:
                self._drop_gradients()
                release_memory()
                action = "the gradients are dropped, and the checkpoint is written again"
                self._job.emit(
                    OutOfMemoryEvent(step=state.step, during="save", tokens=0, action=action)
                )
            written = self._write(state)  # a disk may refuse once
        if isinstance(written, _NotWritten):
            self.tell_failure(state, written.why)
            return False
        self.saved_step, self._again_at = state.step, math.inf
        self._job.stop.save_seconds = written.seconds
        self._kept_best = _Best.of(state)
        saving = self._job.plan.saving
        limit = saving.total_limit if saving.every.steps else 0
        rotated = rotate(self._directory, limit=limit, protected={state.best_step, state.step})
        for text in rotated.failed:
            self._job.emit(MessageEvent(level="warning", text=text))
        self._job.emit(
            CheckpointEvent(
                step=state.step,
                path=str(written.checkpoint.path),
                reason=reason,
                bytes=written.num_bytes,
                seconds=written.seconds,
            )
        )
        return True

    def require_finite(self, state: LoopState) -> None:
        """Finite gradients can still move weights to infinity, by a huge learning rate. Raises
        RunError.
        """
        if names := self._snapshot.non_finite():
            newest = self.saved_step
            kept = f"the newest checkpoint is of step {newest}" if newest else "nothing was saved"
            raise RunError(
                f"the weights are not finite after step {state.step} ({listed(names)}); they were "
                f"not saved, and {kept}",
                hint="lower the learning rate and start again"
                + (", or go on from there with --resume --resume-anyway" if newest else ""),
            )

    def write_final_model(self, state: LoopState) -> None:
        """The best step's files (the last one's where so asked), without what only a resume needs.

        Raises RunError when they cannot be read whole, or not be written.
        """
        plan, target = self._job.plan, self._job.directory.final_model
        wanted = state.best_step if plan.evaluation.load_best else 0
        card = {"README.md": model_card(plan, state).encode()}
        try:
            with staged_directory(target) as stage:
                files = self._final_files(wanted or state.step, state)
                for name, data in chain(files, card.items()):
                    write_bytes(stage / name, data)
        except OSError as error:
            raise RunError(
                f"{target} could not be written: {error}",
                hint="free some space, then the same command with --resume ends the run",
            ) from error

    def _final_files(self, step: int, state: LoopState) -> Iterator[tuple[str, bytes | memoryview]]:
        """From the checkpoint; from memory where the last one could not be saved."""
        if step == state.step != self.saved_step:
            return self._snapshot.model_files()
        if fault := fault_of_step(self._directory, step):
            raise RunError(
                f"checkpoint-{step} was to become the final model, and cannot be used: {fault}",
                hint="the same command with --resume goes on from the newest checkpoint that can",
            )
        return checkpoint_files(
            checkpoint_of(self._directory, step), leave_out=self._snapshot.resume_only
        )

    def _write(self, state: LoopState) -> WrittenCheckpoint | _NotWritten:
        try:
            self.require_finite(state)
            self._job.emit(SavingEvent(step=state.step))
            return write_checkpoint(
                self._directory,
                state.step,
                self._snapshot.files(state),
                expected_bytes=self._snapshot.num_bytes(),
            )
        except SaveFailed as error:
            return _NotWritten(error.summary, short_memory=False)
        except OSError as error:  # what the checkpoint has behind it is not on disk
            path = checkpoint_of(self._directory, state.step)
            failed = save_failed(path, error, self._snapshot.num_bytes())
            return _NotWritten(failed.summary, short_memory=False)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            why = f"out of memory while checkpoint-{state.step} was written: {error}"
            return _NotWritten(why, short_memory=True)

    def tell_failure(self, state: LoopState, why: str) -> None:
        """A save failed. Where the best weights were not kept, the best ones that were count."""
        self._again_at = time.monotonic() + _SECONDS_UNTIL_SAVED_AGAIN
        self._job.emit(SaveFailedEvent(step=state.step, text=why, kept_step=self.saved_step))
        if state.best_step == state.step != self.saved_step:
            self._lose_best(state, "its checkpoint could not be written", self._kept_best)

    def _lose_best(self, state: LoopState, why: str, kept: _Best) -> None:
        if not self._job.plan.evaluation.load_best:
            return
        lost, state.best_step = state.best_step, kept.step
        state.best_metric, state.best_eval_loss = kept.metric, kept.eval_loss
        self._job.emit(
            BestLostEvent(step=state.step, lost_step=lost, kept_step=kept.step, text=why)
        )
