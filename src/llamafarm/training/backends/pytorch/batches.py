"""Rows of a step, packed; prepared ahead by workers when asked for."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType

from llamafarm.data.tokenized import TokenRows
from llamafarm.models.packed import PackedRow, pack
from llamafarm.planning.plan import BatchPlan
from llamafarm.training.order import DataOrder


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One optimizer step's input: a packed row a micro-batch, or a row a conversation where packing
    is off. groups: the dataset rows in each.
    """

    step: int
    epoch: float
    groups: tuple[tuple[int, ...], ...]
    rows: tuple[PackedRow, ...]

    @property
    def indices(self) -> tuple[int, ...]:
        """Dataset rows of the whole step, in order."""
        return tuple(index for group in self.groups for index in group)

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

    def within(self, batch: StepBatch, token_budget: int) -> StepBatch:
        """The same rows in micro-batches of at most `token_budget` tokens (0: no limit), or of one
        conversation where that alone is longer.
        """
        if not token_budget:
            return batch
        parts = [
            part
            for group, row in zip(batch.groups, batch.rows, strict=True)
            for part in self._halved(group, row, token_budget)
        ]
        groups, rows = zip(*parts, strict=True)
        return replace(batch, groups=groups, rows=rows)

    def _halved(
        self, group: tuple[int, ...], row: PackedRow, token_budget: int
    ) -> list[tuple[tuple[int, ...], PackedRow]]:
        if row.num_computed <= token_budget or len(group) == 1:
            return [(group, row)]
        middle = len(group) // 2
        return [
            part
            for half in (group[:middle], group[middle:])
            for part in self._halved(half, pack(self._rows, half), token_budget)
        ]

    def alone(self, index: int) -> PackedRow:
        """One dataset row by itself."""
        return pack(self._rows, (index,), share_prefix=False)

    def _plan(self, step: int) -> tuple[float, tuple[tuple[int, ...], ...]]:
        # The order keeps an epoch's permutation, so it is asked from one thread only.
        rows = self._order.step(step)
        return rows.epoch, rows.micro_batches

    def _make(
        self, step: int, epoch: float, micro_batches: tuple[tuple[int, ...], ...]
    ) -> StepBatch:
        groups = micro_batches if self._packed else tuple((i,) for m in micro_batches for i in m)
        packed = tuple(pack(self._rows, group, share_prefix=self._packed) for group in groups)
        return StepBatch(step, epoch, tuple(groups), packed)
