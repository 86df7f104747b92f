"""How rows become steps: batch sizes, accumulation, epochs, and how many steps that makes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from llamafarm.decision import Decision, Source
from llamafarm.errors import count_of
from llamafarm.hardware.facts import GIB
from llamafarm.models.shape import ModelShape
from llamafarm.planning import tables
from llamafarm.planning.explain import asked, notice, shown, warning
from llamafarm.strategy.model import Strategy

MICRO = "training_args.per_device_train_batch_size"
EVAL = "training_args.per_device_eval_batch_size"
ACCUMULATION = "training_args.gradient_accumulation_steps"
EPOCHS, MAX_STEPS = "training_args.num_train_epochs", "training_args.max_steps"


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """Conversations per micro-step, micro-steps per optimizer step; who chose the former, and
    why.
    """

    micro: int
    accumulation: int
    reason: str
    source: Source = "table"

    @property
    def effective(self) -> int:
        """Conversations per optimizer step."""
        return self.micro * self.accumulation


@dataclass(frozen=True, slots=True)
class RunLength:
    """num_epochs of steps_per_epoch optimizer steps each, rounded up to total_steps."""

    num_epochs: float
    steps_per_epoch: int
    total_steps: int
    decisions: tuple[Decision, ...]


def choose_batch_sizes(
    strategy: Strategy, shape: ModelShape, num_rows: int, memory_bytes: int
) -> BatchSizes:
    """As written; what is left out, by the table and so that a step holds 8 to 16 conversations."""
    args = strategy.training_args
    low, high = int(tables.EFFECTIVE_BATCH.low), int(tables.EFFECTIVE_BATCH.high)
    wanted = min(low, num_rows)
    micro, reason = args.per_device_train_batch_size, ""
    if micro is None:
        micro, reason = _table_batch(shape, memory_bytes)
        if args.gradient_accumulation_steps is not None:
            most = max(1, high // args.gradient_accumulation_steps)
            if most < micro:
                reason += f"; {most} x {args.gradient_accumulation_steps} make no more than {high}"
            micro = min(micro, most)
        if num_rows < micro:
            reason += f"; there are no more than {count_of(num_rows, 'training example')}"
        micro = min(micro, num_rows)
    accumulation = args.gradient_accumulation_steps
    if accumulation is None:
        accumulation = max(1, math.ceil(wanted / micro))
    return BatchSizes(micro, accumulation, reason)


def halved(sizes: BatchSizes, *, keep_effective: bool) -> BatchSizes:
    """Half the micro-batch; with keep_effective about as many conversations in a step as before."""
    micro = sizes.micro // 2
    accumulation = sizes.accumulation
    if keep_effective:
        accumulation = max(1, round(sizes.effective / micro))
    return replace(
        sizes,
        micro=micro,
        accumulation=accumulation,
        reason="what fits into the memory",
        source="detected",
    )


def batch_decisions(strategy: Strategy, shape: ModelShape, sizes: BatchSizes) -> list[Decision]:
    """Both batch sizes, accumulation, and what they come to; a warning outside the table."""
    args = strategy.training_args
    row = tables.size_row(shape.num_parameters)
    decisions = []
    if args.per_device_train_batch_size is None:
        decisions.append(Decision(MICRO, str(sizes.micro), sizes.source, sizes.reason))
    else:
        decisions += [asked(strategy, MICRO, sizes.micro), *_unusual_batch(sizes, row)]
    if args.gradient_accumulation_steps is None:
        reason = f"an effective batch of {tables.EFFECTIVE_BATCH} is aimed at"
        decisions.append(Decision(ACCUMULATION, str(sizes.accumulation), "default", reason))
    else:
        decisions.append(asked(strategy, ACCUMULATION, sizes.accumulation))
    product = f"{sizes.micro} x {sizes.accumulation} conversations per optimizer step"
    effective = Decision(
        "training_args.effective_batch_size", str(sizes.effective), "detected", product
    )
    return [*decisions, effective, _eval_decision(strategy, sizes)]


def _unusual_batch(sizes: BatchSizes, row: tables.SizeRow) -> list[Decision]:
    """A smaller one is only slow, and below 1B the table is our own continuation."""
    advice = f"what the table advises for {row.billions:.3g}B parameters: {row.batch_size}"
    if sizes.micro > row.batch_size.high:
        return [warning(MICRO, sizes.micro, f"a batch of {sizes.micro} is above {advice}")]
    if sizes.micro < row.batch_size.low and row.billions >= tables.SIZE_ROWS[0].billions:
        text = f"a batch of {sizes.micro} is below {advice}; a larger one is faster"
        return [notice(MICRO, sizes.micro, text)]
    return []


def eval_batch_size(strategy: Strategy, sizes: BatchSizes) -> int:
    """As written, else as in training."""
    return strategy.training_args.per_device_eval_batch_size or sizes.micro


def choose_run_length(strategy: Strategy, num_rows: int, sizes: BatchSizes) -> RunLength:
    """Epochs and steps; `max_steps` wins over `num_train_epochs`."""
    args = strategy.training_args
    per_epoch = math.ceil(num_rows / sizes.effective)
    if args.max_steps is not None:
        epochs = args.max_steps / per_epoch
        decisions = [asked(strategy, MAX_STEPS, args.max_steps, f"{epochs:.3g} epochs")]
        if args.num_train_epochs is not None:
            text = f"num_train_epochs={shown(args.num_train_epochs)} is not used: max_steps wins"
            decisions.append(notice(EPOCHS, args.num_train_epochs, text))
        return RunLength(epochs, per_epoch, args.max_steps, tuple(decisions))
    epochs, decisions = _epochs(strategy, num_rows)
    total = max(1, math.ceil(round(epochs * per_epoch, 6)))
    reason = f"{shown(epochs)} x {count_of(per_epoch, 'step')} of {sizes.effective} conversations"
    steps = Decision("training_args.total_steps", str(total), "detected", reason)
    return RunLength(epochs, per_epoch, total, (*decisions, steps))


def _epochs(strategy: Strategy, num_rows: int) -> tuple[float, list[Decision]]:
    written = strategy.training_args.num_train_epochs
    row = tables.data_row(num_rows)
    examples = count_of(num_rows, "training example")
    if written is None:
        epochs = tables.default_epochs(num_rows)
        return epochs, [Decision(EPOCHS, str(epochs), "table", f"{examples}: row {row.name}")]
    decisions = [asked(strategy, EPOCHS, written)]
    advice = f"{shown(written)} epochs; the table advises {row.epochs} for {examples}"
    if written > row.epochs.high:
        text = f"{advice}: more of them memorise rather than learn"
        decisions.append(warning(EPOCHS, written, text))
    elif written < row.epochs.low:
        decisions.append(notice(EPOCHS, written, f"{advice}: fewer are safe against overfitting"))
    return written, decisions


def _table_batch(shape: ModelShape, memory_bytes: int) -> tuple[int, str]:
    """The upper end of the row with the recommended memory, the lower one with less."""
    row = tables.size_row(shape.num_parameters)
    enough = memory_bytes >= row.recommended_memory_gib * GIB
    end = row.batch_size.high if enough else row.batch_size.low
    size = f"{row.billions:.3g}B parameters: row {row.name}, batch {row.batch_size}"
    lacks = f"; less than the recommended {row.recommended_memory_gib:.3g} GiB of memory"
    return int(end), size if enough else size + lacks


def _eval_decision(strategy: Strategy, sizes: BatchSizes) -> Decision:
    written = strategy.training_args.per_device_eval_batch_size
    if written is not None:
        return asked(strategy, EVAL, written)
    return Decision(EVAL, str(sizes.micro), "default", "as in training")
