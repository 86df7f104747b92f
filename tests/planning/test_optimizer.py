from __future__ import annotations

from typing import Any

import pytest

from llamafarm.strategy.model import Method, Strategy, TrainingArgs
from tests.hardware.recorded import A10, H200, LAPTOP, M2_16GB
from tests.planning.building import (
    LLAMA_1B,
    LLAMA_7B,
    SMOLLM2,
    decision,
    plan_for,
    remarks,
    with_args,
)

RATE = "training_args.learning_rate"


@pytest.mark.parametrize(
    ("name", "value", "reaches"),
    [
        ("learning_rate", 0.00005, "learning_rate"),
        ("weight_decay", 0.02, "weight_decay"),
        ("adam_beta1", 0.8, "adam_beta1"),
        ("adam_beta2", 0.95, "adam_beta2"),
        ("adam_epsilon", 1e-6, "adam_epsilon"),
        ("max_grad_norm", 0.5, "max_grad_norm"),
        ("label_smoothing_factor", 0.1, "label_smoothing"),
        ("neftune_noise_alpha", 5.0, "neftune_noise_alpha"),
        ("lr_scheduler_type", "linear", "scheduler"),
        ("lr_scheduler_kwargs", {"num_cycles": 1.5}, "scheduler_kwargs"),
        ("warmup_steps", 10, "warmup_steps"),
        ("optim", "adafactor", "name"),
    ],
)
def test_each_written_setting_reaches_the_optimizer(name: str, value: Any, reaches: str) -> None:
    optimizer = plan_for(with_args(**{name: value})).optimizer
    assert getattr(optimizer, reaches) == value


@pytest.mark.parametrize("machine", [LAPTOP, A10, M2_16GB, H200])
def test_fused_adamw_is_the_default_everywhere(machine: Any) -> None:
    assert plan_for(Strategy(id="s"), machine).optimizer.name == "adamw_torch_fused"


def test_the_rate_of_the_table_comes_with_its_row_and_evidence() -> None:
    found = decision(plan_for(Strategy(id="s"), rows=412), RATE)
    assert (found.value, found.source) == ("0.001", "table")
    assert "412 training examples: row 100-1000" in found.reason
    assert "2.23 to 2.20 with 5e-5, to 1.84 with 1e-3" in found.reason


def test_from_1b_the_rate_of_the_table_needs_no_factor() -> None:
    found = decision(plan_for(Strategy(id="s"), A10, LLAMA_1B, rows=1000), RATE)
    assert (found.value, found.reason) == ("0.0001", "1,000 training examples: row 1000-10000")


def test_full_fine_tuning_says_why_its_rate_is_smaller() -> None:
    full = Strategy(id="s", method=Method(type="full_finetune"))
    found = decision(plan_for(full, H200, LLAMA_7B, rows=1000), RATE)
    assert found.value == "1e-05"
    assert "/ 10 for full fine-tuning" in found.reason


def test_a_rate_above_twice_the_table_is_warned_about_and_kept() -> None:
    plan = plan_for(with_args(learning_rate=2.1e-3), rows=412)
    assert plan.optimizer.learning_rate == 2.1e-3
    assert "more than twice what the table advises" in remarks(plan, RATE)[0]
    assert remarks(plan_for(with_args(learning_rate=2e-3), rows=412), RATE) == []


def test_a_rate_from_which_a_small_model_learns_little_is_warned_about() -> None:
    plan = plan_for(with_args(learning_rate=5e-5), shape=SMOLLM2, rows=115)
    assert plan.optimizer.learning_rate == 5e-5
    assert "less than half of what the table advises" in remarks(plan, RATE)[0]
    assert remarks(plan_for(with_args(learning_rate=5e-5), A10, LLAMA_1B, rows=115), RATE) == []


def test_settings_of_adam_beside_another_optimizer_are_named() -> None:
    plan = plan_for(with_args(optim="sgd", adam_beta2=0.9))
    assert remarks(plan, "training_args.adam_beta2") == [
        "training_args.adam_beta2 has no effect: sgd is not Adam"
    ]


def test_constants_are_said_to_be_defaults() -> None:
    plan = plan_for(Strategy(id="s", training_args=TrainingArgs(max_grad_norm=0.3)))
    assert decision(plan, "training_args.weight_decay").source == "default"
    assert decision(plan, "training_args.max_grad_norm").source == "strategy"
