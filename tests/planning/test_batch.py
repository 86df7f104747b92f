from __future__ import annotations

import math
from typing import Any

import pytest

from llamafarm.planning.plan import BatchPlan
from llamafarm.strategy.model import DatasetSection, Method, Strategy
from tests.hardware.recorded import A10, H200, LAPTOP, RTX_3060, T4
from tests.planning.building import (
    LLAMA_1B,
    LLAMA_3B,
    LLAMA_7B,
    SMOLLM2,
    decision,
    plan_for,
    remarks,
    with_args,
)

QLORA = Method(type="qlora")


def batch(rows: int = 412, machine: Any = LAPTOP, shape: Any = SMOLLM2, **args: Any) -> BatchPlan:
    return plan_for(with_args(**args), machine, shape, rows=rows).batch


@pytest.mark.parametrize(
    ("machine", "shape", "micro"),
    [
        (LAPTOP, SMOLLM2, 8),
        (A10, LLAMA_1B, 2),
        (T4, LLAMA_3B, 2),
        (H200, LLAMA_3B, 4),
        (H200, LLAMA_7B, 8),
    ],
)
def test_the_batch_left_out_follows_model_size_and_memory(
    machine: Any, shape: Any, micro: int
) -> None:
    assert batch(machine=machine, shape=shape).micro_batch_size == micro


@pytest.mark.parametrize("written", [1, 2, 3, 5, 8, 16])
def test_accumulation_left_out_makes_an_effective_batch_of_8_to_16(written: int) -> None:
    found = batch(per_device_train_batch_size=written)
    assert found.micro_batch_size == written
    assert 8 <= found.effective_batch_size <= 16


@pytest.mark.parametrize("accumulation", [1, 2, 3, 4, 8, 16])
def test_the_batch_left_out_goes_with_a_written_accumulation(accumulation: int) -> None:
    found = batch(gradient_accumulation_steps=accumulation)
    assert found.accumulation_steps == accumulation
    assert 8 <= found.effective_batch_size <= 16


def test_both_written_are_taken_as_they_are() -> None:
    found = batch(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert (found.micro_batch_size, found.accumulation_steps) == (2, 2)
    assert found.effective_batch_size == 4


def test_a_batch_never_holds_more_rows_than_there_are() -> None:
    found = batch(rows=3)
    assert (found.micro_batch_size, found.accumulation_steps) == (3, 1)
    assert batch(rows=3, per_device_train_batch_size=1).accumulation_steps == 3


def test_the_effective_batch_is_shown() -> None:
    plan = plan_for(with_args(per_device_train_batch_size=2, gradient_accumulation_steps=2))
    found = decision(plan, "training_args.effective_batch_size")
    assert (found.value, found.reason) == ("4", "2 x 2 conversations per optimizer step")


def test_the_eval_batch_is_that_of_training_unless_written() -> None:
    assert batch().eval_batch_size == 8
    assert batch(per_device_eval_batch_size=3).eval_batch_size == 3


def test_a_batch_above_the_row_is_warned_about_and_kept() -> None:
    plan = plan_for(with_args(per_device_train_batch_size=8), A10, LLAMA_1B)
    assert plan.batch.micro_batch_size == 8
    assert (
        "1.24B parameters: 1 to 2" in remarks(plan, "training_args.per_device_train_batch_size")[0]
    )


@pytest.mark.parametrize(
    ("rows", "effective", "epochs"), [(412, 8, 3.0), (100, 8, 2.5), (7, 4, 0.1), (1000, 16, 1.5)]
)
def test_steps_are_the_epochs_rounded_up(rows: int, effective: int, epochs: float) -> None:
    found = batch(
        rows=rows,
        per_device_train_batch_size=effective,
        gradient_accumulation_steps=1,
        num_train_epochs=epochs,
    )
    assert found.steps_per_epoch == math.ceil(rows / effective)
    assert found.total_steps == max(1, math.ceil(epochs * found.steps_per_epoch))
    assert found.num_epochs == epochs


def test_epochs_that_are_whole_in_decimals_make_no_extra_step() -> None:
    found = batch(
        rows=100,
        per_device_train_batch_size=10,
        gradient_accumulation_steps=1,
        num_train_epochs=1.1,
    )
    assert found.total_steps == 11


def test_the_seeds_57_steps_of_115_rows() -> None:
    found = batch(
        rows=115,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        num_train_epochs=2,
    )
    assert (found.steps_per_epoch, found.total_steps) == (29, 58)


def test_max_steps_wins_over_epochs_and_says_so() -> None:
    plan = plan_for(with_args(max_steps=20, num_train_epochs=3), rows=80)
    assert plan.batch.total_steps == 20
    assert plan.batch.num_epochs == 2
    assert remarks(plan, "training_args.num_train_epochs", "notice") == [
        "num_train_epochs=3 is not used: max_steps wins"
    ]


def test_too_many_epochs_are_warned_about_and_kept() -> None:
    plan = plan_for(with_args(num_train_epochs=20), rows=412)
    assert plan.batch.num_epochs == 20
    assert "the table advises 3 to 5 for 412" in remarks(plan, "training_args.num_train_epochs")[0]


def test_few_epochs_on_small_data_are_noticed_not_warned_about() -> None:
    plan = plan_for(with_args(num_train_epochs=2), rows=80)
    assert remarks(plan, "training_args.num_train_epochs") == []
    (text,) = remarks(plan, "training_args.num_train_epochs", "notice")
    assert "fewer are safe against overfitting" in text


def test_epochs_left_out_follow_the_amount_of_data() -> None:
    assert batch(rows=20).num_epochs == 8
    assert batch(rows=500).num_epochs == 4
    assert batch(rows=20_000, machine=H200).num_epochs == 2


def test_workers_and_shuffling_reach_the_plan() -> None:
    plan = plan_for(
        Strategy(
            id="s",
            dataset=DatasetSection(shuffle=False),
            training_args=with_args(dataloader_num_workers=4).training_args,
        )
    )
    assert (plan.batch.num_workers, plan.batch.shuffle) == (4, False)


def test_a_small_card_takes_smaller_micro_batches_and_keeps_the_effective_batch() -> None:
    plan = plan_for(Strategy(id="s", method=QLORA), RTX_3060, LLAMA_7B, rows=412)
    assert plan.batch.effective_batch_size == 8
