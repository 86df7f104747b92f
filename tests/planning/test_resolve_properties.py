"""Whatever a strategy says, it is planned as written, or refused with an error of ours."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.errors import LlamafarmError
from llamafarm.planning.plan import TrainingPlan
from llamafarm.strategy.model import (
    HardwareSection,
    Method,
    Precision,
    PrecisionFlags,
    Quantization,
    Strategy,
    TrainingArgs,
)
from tests.hardware.recorded import ALL
from tests.planning.building import LLAMA_1B, LLAMA_7B, SMOLLM2, make_report, plan_for


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


positive = st.integers(1, 1000)
flags = st.fixed_dictionaries(
    {f"use_{n}": optional(st.booleans()) for n in ("fp16", "bf16", "tf32")}
)

methods = st.builds(
    Method,
    type=st.sampled_from(["lora", "qlora", "full_finetune", "freeze"]),
    r=optional(st.integers(1, 300)),
    alpha=optional(st.floats(0.1, 512)),
    dropout=st.floats(0, 0.9),
    bias=st.sampled_from(["none", "all", "lora_only"]),
    target_modules=optional(
        st.lists(st.sampled_from(["q_proj", "v_proj", "mlp.up_proj", "w1"]), max_size=3).map(tuple)
    ),
    modules_to_save=st.lists(st.sampled_from(["embed_tokens", "nothing"]), max_size=1).map(tuple),
    layers_to_transform=optional(st.lists(st.integers(0, 40), max_size=3).map(tuple)),
    layers_pattern=optional(st.sampled_from(["layers", "h"])),
    use_dora=st.booleans(),
    quantization=st.builds(
        Quantization,
        load_in_4bit=optional(st.booleans()),
        load_in_8bit=optional(st.booleans()),
        bnb_4bit_compute_dtype=st.sampled_from(["auto", "float32", "float16", "bfloat16"]),
    ),
)
training_args = st.builds(
    TrainingArgs,
    num_train_epochs=optional(st.floats(0.001, 50)),
    max_steps=optional(positive),
    per_device_train_batch_size=optional(st.integers(1, 64)),
    per_device_eval_batch_size=optional(st.integers(1, 64)),
    gradient_accumulation_steps=optional(st.integers(1, 64)),
    learning_rate=optional(st.floats(1e-9, 1)),
    warmup_steps=optional(st.floats(0, 0.99) | positive),
    lr_scheduler_type=st.sampled_from(["linear", "cosine", "polynomial", "constant"]),
    optim=optional(st.sampled_from(["adamw_torch", "adamw_8bit", "adafactor", "sgd"])),
    eval_strategy=st.sampled_from(["steps", "epoch", "no"]),
    eval_steps=optional(st.floats(0.001, 0.99) | positive),
    eval_delay=st.floats(0, 20),
    save_strategy=optional(st.sampled_from(["steps", "epoch", "no", "best"])),
    save_steps=optional(st.floats(0.001, 0.99) | positive),
    metric_for_best_model=st.sampled_from(["eval_loss", "accuracy", "perplexity", "f1"]),
    greater_is_better=optional(st.booleans()),
    early_stopping_patience=st.integers(0, 10),
    logging_steps=optional(st.floats(0.001, 0.99) | positive),
    mixed_precision=optional(st.sampled_from(["no", "fp16", "bf16"])),
    gradient_checkpointing=optional(st.booleans()),
)
hardware_sections = st.builds(
    HardwareSection,
    device=st.sampled_from(["auto", "auto", "auto", "cuda", "cuda:0", "cuda:1", "mps", "cpu"]),
    memory_gb=optional(st.floats(2, 200)),
    precision=st.builds(
        lambda flat, cuda, cpu: Precision(
            **flat, cuda=PrecisionFlags(**cuda), cpu=PrecisionFlags(**cpu)
        ),
        flags,
        flags,
        flags,
    ),
)
whole_strategies = st.builds(
    Strategy,
    id=st.just("s"),
    method=methods,
    training_args=training_args,
    hardware=hardware_sections,
)


def try_plan(
    strategy: Strategy, machine: str, shape: Any, rows: int, available: bool
) -> TrainingPlan | None:
    report = make_report(rows, 0 if strategy.training_args.eval_strategy == "no" else None)
    try:
        return plan_for(strategy, ALL[machine], shape, report=report, bitsandbytes=available)
    except LlamafarmError as error:
        assert error.exit_code == 2
        assert error.render()
        return None


@settings(max_examples=150, deadline=None)
@given(
    whole_strategies,
    st.sampled_from(sorted(ALL)),
    st.sampled_from([SMOLLM2, LLAMA_1B, LLAMA_7B]),
    st.integers(1, 200_000),
    st.booleans(),
)
def test_a_strategy_is_planned_or_refused_with_an_error_of_ours(
    strategy: Strategy, machine: str, shape: Any, rows: int, available: bool
) -> None:
    plan = try_plan(strategy, machine, shape, rows, available)
    if plan is None:
        return
    assert plan.batch.total_steps >= 1
    assert plan.optimizer.learning_rate > 0
    assert plan.forecast.memory_bytes > 0
    assert plan.forecast.disk_bytes > 0


@settings(max_examples=150, deadline=None)
@given(training_args, st.sampled_from(sorted(ALL)), st.integers(1, 20_000))
def test_a_written_value_is_never_changed(args: TrainingArgs, machine: str, rows: int) -> None:
    plan = try_plan(Strategy(id="s", training_args=args), machine, SMOLLM2, rows, True)
    if plan is None:
        return
    total = plan.batch.total_steps

    def in_steps(value: float) -> int:
        return int(value) if value >= 1 else math.ceil(value * total)

    same: list[tuple[Any, Any]] = [
        (args.per_device_train_batch_size, plan.batch.micro_batch_size),
        (args.per_device_eval_batch_size, plan.batch.eval_batch_size),
        (args.gradient_accumulation_steps, plan.batch.accumulation_steps),
        (args.learning_rate, plan.optimizer.learning_rate),
        (args.optim, plan.optimizer.name),
        (args.max_steps, total),
        (args.gradient_checkpointing, plan.gradient_checkpointing),
    ]
    if args.max_steps is None:
        same.append((args.num_train_epochs, plan.batch.num_epochs))
    if args.eval_strategy == "steps":
        same.append((args.eval_steps and in_steps(args.eval_steps), plan.evaluation.every.steps))
    if args.eval_strategy != "no":
        same.append((args.early_stopping_patience, plan.evaluation.patience))
    if args.save_strategy == "steps":
        same.append((args.save_steps and in_steps(args.save_steps), plan.saving.every.steps))
    if args.lr_scheduler_type != "constant" and args.warmup_steps is not None:
        same.append((in_steps(args.warmup_steps), plan.optimizer.warmup_steps))
    for written, planned in same:
        assert written is None or written == planned
