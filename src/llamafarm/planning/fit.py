"""Make a run fit into the memory: by what was left out first, by advice where it was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llamafarm.decision import Decision
from llamafarm.hardware.facts import GIB
from llamafarm.planning.batch import MICRO, BatchSizes, eval_batch_size, halved
from llamafarm.planning.explain import asked, warning
from llamafarm.planning.memory import Workload, memory_bytes
from llamafarm.planning.plan import QuantizationPlan
from llamafarm.strategy.model import Strategy

CHECKPOINTING = "training_args.gradient_checkpointing"


@dataclass(frozen=True, slots=True)
class Fit:
    """The workload as it will run. decisions: checkpointing, and a warning where it does not
    fit.
    """

    work: Workload
    sizes: BatchSizes
    decisions: tuple[Decision, ...]


def fit(
    strategy: Strategy,
    work: Workload,
    sizes: BatchSizes,
    limit_bytes: int,
    *,
    bitsandbytes_available: bool,
) -> Fit:
    """The first that fits of: as chosen, with gradient checkpointing, with smaller micro-batches.

    Only what the strategy left out is changed; where nothing fits, the smallest is taken and a
    warning says what would help.
    """
    chosen, chosen_sizes = work, sizes
    for candidate, candidate_sizes in _candidates(strategy, work, sizes):
        chosen, chosen_sizes = candidate, candidate_sizes
        if memory_bytes(candidate) <= limit_bytes:
            break
    decisions = [_checkpointing_decision(strategy, work, chosen, limit_bytes)]
    if memory_bytes(chosen) > limit_bytes:
        decisions.append(
            _too_large(chosen, limit_bytes, bitsandbytes_available=bitsandbytes_available)
        )
    return Fit(chosen, chosen_sizes, tuple(decisions))


def _candidates(
    strategy: Strategy, work: Workload, sizes: BatchSizes
) -> Iterator[tuple[Workload, BatchSizes]]:
    args = strategy.training_args
    yield work, sizes
    if args.gradient_checkpointing is None:
        work = replace(work, gradient_checkpointing=True)
        yield work, sizes
    if args.per_device_train_batch_size is not None:
        return
    keep_effective = args.gradient_accumulation_steps is None
    while sizes.micro > 1:
        sizes = halved(sizes, keep_effective=keep_effective)
        evaluation = eval_batch_size(strategy, sizes)
        work = replace(work, micro_batch_size=sizes.micro, eval_batch_size=evaluation)
        yield work, sizes


def _checkpointing_decision(
    strategy: Strategy, before: Workload, chosen: Workload, limit_bytes: int
) -> Decision:
    written = strategy.training_args.gradient_checkpointing
    if written is not None:
        return asked(strategy, CHECKPOINTING, written)
    need = f"{_gib(memory_bytes(before))} of {_gib(limit_bytes)} GiB"
    if chosen.gradient_checkpointing:
        reason = f"without it the run would need {need}"
        return Decision(CHECKPOINTING, "true", "detected", reason)
    return Decision(CHECKPOINTING, "false", "detected", f"the run needs about {need}")


def _too_large(work: Workload, limit_bytes: int, *, bitsandbytes_available: bool) -> Decision:
    """A warning, never a refusal: the forecast can be wrong, and out of memory is handled."""
    helping = [
        change
        for change, changed in _changes(work, bitsandbytes_available=bitsandbytes_available)
        if memory_bytes(changed) <= limit_bytes
    ]
    advice = f"it would fit with {' or '.join(helping)}" if helping else "take a smaller model"
    text = (
        f"this run needs about {_gib(memory_bytes(work))} GiB and there are {_gib(limit_bytes)} "
        f"GiB: {advice}"
    )
    return warning(MICRO, work.micro_batch_size, text)


def _changes(work: Workload, *, bitsandbytes_available: bool) -> Iterator[tuple[str, Workload]]:
    """Single changes a person could make, the cheapest first."""
    checkpointed = replace(work, gradient_checkpointing=True)
    if not work.gradient_checkpointing:
        yield "`gradient_checkpointing: true`", checkpointed
    if work.micro_batch_size > 1:
        smaller = replace(work, micro_batch_size=1, eval_batch_size=1)
        yield "`per_device_train_batch_size: 1`", smaller
    if work.adapter is None:
        lora = replace(
            work,
            weights="bfloat16" if work.mixed_precision == "bf16" else work.weights,
            adapter=None,
            num_trainable_parameters=work.shape.num_parameters // 100,
        )
        yield "`method.type: lora`", lora
    elif work.quantization is None and work.device != "mps" and bitsandbytes_available:
        nf4 = QuantizationPlan(4, "nf4", True, work.weights)
        yield "`method.type: qlora`", replace(work, quantization=nf4)
        yield (
            "`method.type: qlora` with `gradient_checkpointing: true`",
            replace(checkpointed, quantization=nf4),
        )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
