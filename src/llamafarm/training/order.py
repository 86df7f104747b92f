"""Which rows a step trains on: a function of (seed, epoch, position), so nothing is replayed on
resume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamafarm.planning.plan import BatchPlan


@dataclass(frozen=True, slots=True)
class StepRows:
    """Rows of one optimizer step, cut into micro-batches. epoch: passes completed after the
    step.
    """

    micro_batches: tuple[tuple[int, ...], ...]
    epoch: float

    @property
    def rows(self) -> tuple[int, ...]:
        """All rows of the step."""
        return tuple(row for batch in self.micro_batches for row in batch)


class DataOrder:
    """The order of a whole run. Keeps the permutation of one epoch in memory: 8 bytes a row."""

    def __init__(self, num_rows: int, batch: BatchPlan, seed: int) -> None:
        self._num_rows = num_rows
        self._batch = batch
        self._seed = seed
        self._epoch = -1
        self._permutation: npt.NDArray[np.int64] = np.arange(num_rows)

    def step(self, step: int) -> StepRows:
        """Rows of optimizer step `step` (1-based)."""
        epoch, position = divmod(step - 1, self._batch.steps_per_epoch)
        effective, micro = self._batch.effective_batch_size, self._batch.micro_batch_size
        end = min((position + 1) * effective, self._num_rows)
        rows = self._order(epoch)[position * effective : end].tolist()
        batches = tuple(tuple(rows[i : i + micro]) for i in range(0, len(rows), micro))
        return StepRows(batches, epoch + end / self._num_rows)

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._batch.shuffle and epoch != self._epoch:
            self._permutation = np.random.Generator(
                np.random.Philox(key=[self._seed, epoch])
            ).permutation(self._num_rows)
            self._epoch = epoch
        return self._permutation


def step_seed(seed: int, step: int) -> int:
    """Seed of all random numbers drawn inside one optimizer step (dropout, embedding noise).

    Every step starts its own stream, so a resumed run draws what the uninterrupted one would have
    drawn,
    and an evaluation between two steps cannot change what follows. 63 bits, from NumPy's
    SeedSequence.
    """
    state = np.random.SeedSequence([seed, step]).generate_state(1, dtype=np.uint64)
    return int(state[0] >> np.uint64(1))
