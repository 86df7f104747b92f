"""What is done when a run would not fit into the memory."""

from __future__ import annotations

from typing import Any

from llamafarm.hardware.facts import Hardware
from llamafarm.planning.plan import TrainingPlan
from llamafarm.strategy.model import HardwareSection, Method, Strategy, TrainingArgs
from tests.hardware.recorded import A10, RTX_3060, SERVER_AMX, make_cpu
from tests.planning.building import (
    LLAMA_1B,
    LLAMA_3B,
    LLAMA_7B,
    SMOLLM2,
    decision,
    make_report,
    plan_for,
    remarks,
)

CHECKPOINTING = "training_args.gradient_checkpointing"
MICRO = "training_args.per_device_train_batch_size"
SMALL = Hardware(make_cpu("Intel(R) Core(TM) i5-8250U", 2, 4.5))


def plan(machine: Hardware, shape: Any, tokens: int = 1000, **args: Any) -> TrainingPlan:
    strategy = Strategy(id="s", training_args=TrainingArgs(**args))
    report = make_report(400, tokens=tokens, longest=tokens)
    return plan_for(strategy, machine, shape, report=report)


def test_what_fits_is_left_alone() -> None:
    found = plan(SERVER_AMX, SMOLLM2)
    assert not found.gradient_checkpointing
    assert found.forecast.fits
    assert decision(found, CHECKPOINTING).value == "false"


def test_checkpointing_comes_first() -> None:
    found = plan(A10, LLAMA_3B, tokens=2000)
    assert found.gradient_checkpointing
    assert found.batch.micro_batch_size == 4
    assert found.forecast.fits
    assert "without it the run would need" in decision(found, CHECKPOINTING).reason


def test_then_micro_batches_shrink_and_the_effective_batch_stays() -> None:
    found = plan(SMALL, SMOLLM2, tokens=400)
    assert found.gradient_checkpointing
    assert found.batch.micro_batch_size < 8
    assert found.batch.effective_batch_size == 8
    assert found.forecast.fits
    assert decision(found, MICRO).reason == "what fits into the memory"


def test_the_batch_shrinks_alone_where_accumulation_was_written() -> None:
    found = plan(SMALL, SMOLLM2, tokens=400, gradient_accumulation_steps=2)
    assert found.batch.accumulation_steps == 2
    assert found.batch.micro_batch_size < 8


def test_written_values_stay_and_the_warning_says_what_would_help() -> None:
    found = plan(
        A10, LLAMA_7B, per_device_train_batch_size=4, gradient_checkpointing=False, tokens=1500
    )
    assert found.batch.micro_batch_size == 4
    assert not found.gradient_checkpointing
    (text,) = [t for t in remarks(found, MICRO) if "it would fit with" in t]
    assert "`gradient_checkpointing: true`" in text
    assert not found.forecast.fits


def test_a_model_that_is_too_large_is_a_warning_with_the_cheapest_change() -> None:
    found = plan(RTX_3060, LLAMA_7B)
    (text,) = remarks(found, MICRO)
    assert "`method.type: qlora`" in text
    assert found.batch.micro_batch_size == 1


def test_qlora_is_not_advised_where_it_cannot_be_had() -> None:
    strategy = Strategy(id="s")
    found = plan_for(strategy, RTX_3060, LLAMA_7B, bitsandbytes=False)
    assert "qlora" not in remarks(found, MICRO)[0]
    assert "take a smaller model" in remarks(found, MICRO)[0]


def test_full_fine_tuning_that_is_too_large_is_advised_to_adapt() -> None:
    full = Strategy(id="s", method=Method(type="full_finetune"))
    assert "`method.type: lora`" in remarks(plan_for(full, A10, LLAMA_3B), MICRO)[0]


def test_memory_gb_is_an_upper_bound_for_the_planner() -> None:
    capped = Strategy(id="s", hardware=HardwareSection(memory_gb=8))
    found = plan_for(capped, A10, LLAMA_1B)
    assert found.forecast.memory_limit_bytes == 8 * 1024**3
    more = Strategy(id="s", hardware=HardwareSection(memory_gb=80))
    found = plan_for(more, A10, LLAMA_1B)
    assert found.forecast.memory_limit_bytes == A10.accelerators[0].memory_free_bytes
    assert "more than there is" in remarks(found, "hardware.memory_gb")[0]


def test_less_memory_than_the_table_asks_for_is_warned_about() -> None:
    capped = Strategy(id="s", hardware=HardwareSection(memory_gb=8), method=Method(r=8))
    found = plan_for(capped, A10, LLAMA_3B)
    assert found.forecast.fits
    assert "below the 8.43 GiB that the table asks for" in remarks(found, "hardware.memory_gb")[0]


def test_too_little_disk_is_a_warning() -> None:
    found = plan_for(Strategy(id="s"), disk_gib=0.01)
    assert "10.2 MiB are free" in remarks(found, "training_args.save_total_limit")[0]
