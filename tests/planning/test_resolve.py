"""The whole plan: each parameter of the seed's scenarios, order, sources, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.decision import Decision
from llamafarm.errors import DataError, HardwareError
from llamafarm.planning.plan import TrainingPlan
from llamafarm.planning.render import short_field
from llamafarm.strategy.model import BaseModelSpec, Method, Origin, Strategy, TrainingArgs
from tests.hardware.recorded import A10, H200, LAPTOP, M2_16GB
from tests.planning.building import (
    HOME,
    LLAMA_7B,
    SMOLLM2_SOURCE,
    at_line,
    decision,
    hub_source,
    make_report,
    make_request,
    plan_for,
    remarks,
    with_args,
)
from tests.planning.golden_plans import SCENARIO_1, SCENARIO_2, SCENARIO_3

CUSTOM = Strategy(
    id="my_training",
    title="Custom Domain Training",
    method=Method(type="lora", r=8, alpha=16),
    training_args=TrainingArgs(num_train_epochs=3, eval_strategy="steps", eval_steps=100),
)


def value(plan: TrainingPlan, path: str) -> Any:
    found: Any = plan
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("strategy_id", "my_training"),
        ("title", "Custom Domain Training"),
        ("backend", "pytorch"),
        ("adapter.r", 8),
        ("adapter.alpha", 16),
        ("batch.num_epochs", 3),
        ("evaluation.enabled", True),
        ("evaluation.every.steps", 100),
    ],
)
def test_each_parameter_of_the_custom_strategy_reaches_the_plan(path: str, expected: Any) -> None:
    assert value(plan_for(CUSTOM), path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("adapter.r", 4),
        ("adapter.dropout", 0.15),
        ("batch.num_epochs", 2),
        ("optimizer.learning_rate", 0.00005),
        ("optimizer.weight_decay", 0.01),
        ("evaluation.enabled", True),
        ("evaluation.every.steps", 20),
    ],
)
def test_each_parameter_of_scenario_1_reaches_the_plan(path: str, expected: Any) -> None:
    assert value(plan_for(SCENARIO_1, LAPTOP, rows=80), path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("device.device", "cuda:0"),
        ("device.mixed_precision", "bf16"),
        ("model.dtype", "bfloat16"),
        ("adapter.r", 32),
        ("batch.micro_batch_size", 8),
        ("batch.accumulation_steps", 1),
        ("batch.effective_batch_size", 8),
    ],
)
def test_each_parameter_of_scenario_2_reaches_the_plan(path: str, expected: Any) -> None:
    assert value(plan_for(SCENARIO_2, H200, LLAMA_7B), path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("device.device", "mps"),
        ("device.mixed_precision", "no"),
        ("model.dtype", "float32"),
        ("batch.micro_batch_size", 2),
        ("batch.accumulation_steps", 2),
        ("batch.effective_batch_size", 4),
    ],
)
def test_each_parameter_of_scenario_3_reaches_the_plan(path: str, expected: Any) -> None:
    assert value(plan_for(SCENARIO_3, M2_16GB), path) == expected


@pytest.mark.parametrize("strategy", [SCENARIO_2, SCENARIO_3], ids=["cuda", "mps"])
def test_a_scenario_for_another_machine_is_refused_with_the_alternative(strategy: Strategy) -> None:
    with pytest.raises(HardwareError) as caught:
        plan_for(strategy, LAPTOP)
    assert caught.value.exit_code == 2
    assert "--set hardware.device=cpu" in caught.value.problems[0].hint
    assert caught.value.problems[0].where == "strategies.yaml:6"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("seed", 7),
        ("torch_compile", True),
        ("gradient_checkpointing", True),
        ("output_dir", HOME / "runs" / "one"),
        ("device.tf32", False),
    ],
)
def test_other_written_values_reach_the_plan(path: str, expected: Any) -> None:
    strategy = with_args(
        seed=7, torch_compile=True, gradient_checkpointing=True, output_dir="runs/one", tf32=False
    )
    assert value(plan_for(strategy, A10), path) == expected


def test_the_output_directory_is_named_after_the_strategy() -> None:
    plan = plan_for(Strategy(id="my_training"))
    assert plan.output_dir == HOME / "fine_tuned_models" / "my_training"
    assert decision(plan, "training_args.output_dir").value == "fine_tuned_models/my_training"


def test_an_absolute_output_directory_is_taken_as_it_is() -> None:
    assert plan_for(with_args(output_dir="/runs/one")).output_dir == Path("/runs/one")


def test_what_a_nonfinite_loss_does_reaches_the_plan() -> None:
    assert plan_for(Strategy(id="s")).on_nonfinite == "stop"
    assert plan_for(Strategy(id="s", on_nonfinite="skip")).on_nonfinite == "skip"


def test_data_and_model_are_carried_into_the_plan() -> None:
    request, report = make_request(max_length=512), make_report(50)
    plan = plan_for(Strategy(id="s"), request=request, report=report)
    assert (plan.data, plan.data_fingerprint, plan.max_length) == (request, "d" * 64, 512)
    assert plan.model.source == SMOLLM2_SOURCE


def test_every_decision_has_a_source_and_those_of_data_stand_among_them() -> None:
    data = Decision("dataset.path", "data.jsonl", "strategy", "s, line 4")
    plan = plan_for(CUSTOM, data_decisions=(data,))
    assert data in plan.decisions
    assert all(d.field and d.source for d in plan.decisions)


def test_no_value_is_decided_twice() -> None:
    for strategy in (CUSTOM, SCENARIO_1, Strategy(id="s")):
        plan = plan_for(strategy)
        values = [d.field for d in plan.decisions if d.source not in ("warning", "notice")]
        assert len(values) == len(set(values))


def test_decisions_come_in_the_order_of_a_reader() -> None:
    fields = [d.field for d in plan_for(CUSTOM).decisions]
    paths = [
        "base_model",
        "training_args.output_dir",
        "hardware.device",
        "hardware.precision",
        "method.type",
        "method.r",
        "training_args.learning_rate",
        "training_args.per_device_train_batch_size",
        "training_args.num_train_epochs",
        "training_args.warmup_steps",
        "training_args.eval_steps",
        "training_args.save_steps",
    ]
    wanted = [short_field(path) for path in paths]
    assert [field for field in fields if field in wanted] == wanted


def test_a_flag_and_a_line_are_named_as_the_source() -> None:
    origins = {
        "training_args.learning_rate": Origin(kind="flag", text="--learning-rate 1e-3"),
        "training_args.num_train_epochs": at_line(10),
    }
    args = TrainingArgs(learning_rate=1e-3, num_train_epochs=3)
    plan = plan_for(Strategy(id="my_training", training_args=args, origins=origins))
    rate = decision(plan, "training_args.learning_rate")
    assert (rate.value, rate.source, rate.reason) == ("0.001", "flag", "--learning-rate 1e-3")
    epochs = decision(plan, "training_args.num_train_epochs")
    assert (epochs.source, epochs.reason) == ("strategy", "my_training, line 10")


def test_the_base_model_is_explained() -> None:
    assert decision(plan_for(Strategy(id="s")), "base_model").source == "default"
    written = Strategy(id="s", base_model=BaseModelSpec(id="org/model", revision="v1"))
    plan = plan_for(written, source=hub_source("org/model"))
    assert decision(plan, "base_model").source == "strategy"
    assert decision(plan, "base_model.revision").value == "v1"


def test_weights_that_stand_in_for_others_are_noticed() -> None:
    source = replace(SMOLLM2_SOURCE, notice="the packaged copy stands in")
    plan = plan_for(Strategy(id="s"), source=source)
    assert remarks(plan, "base_model", "notice") == ["the packaged copy stands in"]


def test_warnings_about_the_data_are_warnings_of_the_plan() -> None:
    report = replace(make_report(50), warnings=("only 5 evaluation rows",))
    assert "only 5 evaluation rows" in plan_for(Strategy(id="s"), report=report).warnings


def test_a_very_small_dataset_is_told_of_the_tables_share() -> None:
    plan = plan_for(Strategy(id="s"), report=make_report(36, 4))
    assert remarks(plan, "dataset.eval_split", "notice") == [
        "for 40 rows the table advises `eval_split: 0.05`"
    ]
    assert remarks(plan_for(Strategy(id="s"), rows=400), "dataset.eval_split", "notice") == []


def test_a_training_set_without_rows_is_a_data_error() -> None:
    report = make_report(10)
    empty = replace(report, train=replace(report.train, rows=0))
    with pytest.raises(DataError, match="no row to train on"):
        plan_for(Strategy(id="s"), report=empty)


def test_without_evaluation_rows_nothing_is_evaluated() -> None:
    plan = plan_for(Strategy(id="s"), report=make_report(10, 0))
    assert not plan.evaluation.enabled
    assert not plan.evaluation.load_best


def test_resolving_twice_gives_the_same_plan() -> None:
    assert plan_for(SCENARIO_1) == plan_for(SCENARIO_1)
