"""Rows of a step, packed; prepared ahead by workers when asked for."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from llamafarm.data.tokenized import TokenRows
from llamafarm.models.packed import PackedRow, pack
from llamafarm.planning.plan import BatchPlan
from llamafarm.training.order import DataOrder


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One optimizer step's input: a packed row a micro-batch, or a row a conversation where packing
    is off.
    """

    step: int
    epoch: float
    indices: tuple[int, ...]
    rows: tuple[PackedRow, ...]

    @property
    def num_labels(self) -> int:
        """Trained tokens of the whole step: what its loss is divided by."""
        return sum(row.num_labels for row in self.rows)

    @property
    def num_tokens(self) -> int:
        """Tokens of the step's conversations as written."""
        return sum(row.num_tokens for row in self.rows)


class BatchFeed:
    """Hands out the batches of a run in order. Context manager: workers end with the block."""

    def __init__(self, rows: TokenRows, batch: BatchPlan, seed: int, *, packed: bool) -> None:
        self._rows = rows
        self._order = DataOrder(len(rows), batch, seed)
        self._packed = packed
        self._last_step = batch.total_steps
        self._ahead: dict[int, Future[StepBatch]] = {}
        self._num_workers = batch.num_workers
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> BatchFeed:
        if self._num_workers:
            self._pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="batches")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int) -> StepBatch:
        """The batch of optimizer step `step`; with workers, the following ones are started too."""
        if self._pool is None:
            return self._make(step, *self._plan(step))
        for ahead in range(step, min(step + 2 * self._num_workers, self._last_step) + 1):
            if ahead not in self._ahead:
                self._ahead[ahead] = self._pool.submit(self._make, ahead, *self._plan(ahead))
        return self._ahead.pop(step).result()

    def _plan(self, step: int) -> tuple[float, tuple[tuple[int, ...], ...]]:
        # The order keeps an epoch's permutation, so it is asked from one thread only.
        rows = self._order.step(step)
        return rows.epoch, rows.micro_batches

    def _make(
        self, step: int, epoch: float, micro_batches: tuple[tuple[int, ...], ...]
    ) -> StepBatch:
        groups = micro_batches if self._packed else tuple((i,) for m in micro_batches for i in m)
        packed = tuple(pack(self._rows, group, share_prefix=self._packed) for group in groups)
        return StepBatch(step, epoch, tuple(i for group in groups for i in group), packed)
