from __future__ import annotations

from typing import Any

import pytest

from llamafarm.planning.plan import EvaluationPlan, Every, LoggingPlan, SavingPlan, TrainingPlan
from llamafarm.strategy.model import Monitoring, Strategy, TrainingArgs
from tests.hardware.recorded import LAPTOP
from tests.planning.building import SMOLLM2, decision, plan_for, remarks, with_args


def plan(rows: int = 800, epochs: float = 1, **args: Any) -> TrainingPlan:
    """100 steps of 8 conversations unless said otherwise."""
    fixed = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    strategy = with_args(**(fixed | {"num_train_epochs": epochs} | args))
    return plan_for(strategy, LAPTOP, SMOLLM2, rows=rows)


def evaluation(**args: Any) -> EvaluationPlan:
    return plan(**args).evaluation


def saving(**args: Any) -> SavingPlan:
    return plan(**args).saving


def logging(**args: Any) -> LoggingPlan:
    return plan(**args).logging


@pytest.mark.parametrize(("written", "steps"), [(10, 10), (1, 1), (0.1, 10), (0.025, 3), (0, 0)])
def test_warmup_is_in_steps_or_a_fraction_of_the_run(written: float, steps: int) -> None:
    assert plan(warmup_steps=written).optimizer.warmup_steps == steps


@pytest.mark.parametrize(("rows", "steps"), [(40, 1), (800, 5), (8000, 30), (16_000, 20)])
def test_warmup_left_out_is_the_tables_share(rows: int, steps: int) -> None:
    found = plan(rows=rows)
    assert found.optimizer.warmup_steps == steps
    assert decision(found, "training_args.warmup_steps").source == "table"


def test_a_warmup_as_long_as_the_run_is_warned_about_and_kept() -> None:
    found = plan(warmup_steps=100)
    assert found.optimizer.warmup_steps == 100
    assert "never reaches its peak" in remarks(found, "training_args.warmup_steps")[0]


def test_a_constant_schedule_has_no_warmup_and_names_a_written_one() -> None:
    assert plan(lr_scheduler_type="constant").optimizer.warmup_steps == 0
    found = plan(lr_scheduler_type="constant", warmup_steps=5)
    assert "constant_with_warmup has one" in remarks(found, "training_args.warmup_steps")[0]
    found = plan(lr_scheduler_type="constant_with_warmup", warmup_steps=5)
    assert found.optimizer.warmup_steps == 5


def test_evaluation_is_on_by_default_about_ten_times_a_run() -> None:
    found = evaluation()
    assert (found.enabled, found.on_start, found.load_best) == (True, True, True)
    assert found.every == Every(10)
    assert (found.metric, found.greater_is_better) == ("eval_loss", False)
    assert (found.patience, found.threshold) == (3, 1e-4)


@pytest.mark.parametrize(("written", "steps"), [(20, 20), (0.25, 25), (1, 1)])
def test_eval_steps_are_obeyed(written: float, steps: int) -> None:
    assert evaluation(eval_steps=written).every == Every(steps)


def test_eval_steps_beyond_the_run_stay_as_written_with_a_warning() -> None:
    found = plan(eval_steps=500)
    assert found.evaluation.every == Every(500)
    (text,) = remarks(found, "training_args.eval_steps")
    assert text.startswith("eval_steps=500 exceeds the 100 steps of this run: only the base model")


def test_evaluating_by_epoch_counts_in_steps_of_an_epoch() -> None:
    found = plan(rows=80, epochs=5, eval_strategy="epoch")
    assert found.evaluation.every == Every(10)
    assert found.saving.every == Every(10)


def test_eval_steps_beside_epoch_are_named() -> None:
    found = plan(eval_strategy="epoch", eval_steps=7)
    assert "no effect: eval_strategy is epoch" in remarks(found, "training_args.eval_steps")[0]


def test_the_first_evaluation_waits_for_the_delay_as_in_transformers() -> None:
    every = evaluation(eval_steps=10, eval_delay=30).every
    assert [step for step in range(1, 51) if every.due(step)] == [30, 40, 50]
    by_epoch = plan(rows=80, epochs=5, eval_strategy="epoch", eval_delay=2).evaluation.every
    assert [step for step in range(1, 51) if by_epoch.due(step)] == [20, 30, 40, 50]


@pytest.mark.parametrize(
    ("name", "value", "reaches"),
    [
        ("eval_on_start", False, "on_start"),
        ("load_best_model_at_end", False, "load_best"),
        ("early_stopping_patience", 5, "patience"),
        ("early_stopping_patience", 0, "patience"),
        ("early_stopping_threshold", 0.01, "threshold"),
    ],
)
def test_each_written_setting_reaches_the_evaluation(name: str, value: Any, reaches: str) -> None:
    assert getattr(evaluation(**{name: value}), reaches) == value


@pytest.mark.parametrize(
    ("written", "metric", "greater"),
    [
        ("eval_loss", "eval_loss", False),
        ("loss", "eval_loss", False),
        ("perplexity", "perplexity", False),
        ("eval_perplexity", "perplexity", False),
        ("accuracy", "accuracy", True),
        ("eval_accuracy", "accuracy", True),
    ],
)
def test_the_metric_has_one_name_and_its_own_direction(
    written: str, metric: str, greater: bool
) -> None:
    found = evaluation(metric_for_best_model=written)
    assert (found.metric, found.greater_is_better) == (metric, greater)


def test_a_direction_against_the_metric_is_obeyed_and_warned_about() -> None:
    found = plan(metric_for_best_model="eval_loss", greater_is_better=True)
    assert found.evaluation.greater_is_better
    assert "keeps the worst step" in remarks(found, "training_args.greater_is_better")[0]
    assert remarks(plan(greater_is_better=False), "training_args.greater_is_better") == []


def test_eval_strategy_no_switches_best_and_stopping_off_with_a_warning() -> None:
    found = plan(eval_strategy="no", early_stopping_patience=5, eval_steps=7)
    assert found.evaluation.enabled is False
    assert (found.evaluation.load_best, found.evaluation.patience) == (False, 0)
    (text,) = remarks(found, "training_args.eval_strategy")
    assert "final_model is the last step" in text
    assert text.endswith("no effect: eval_steps, early_stopping_patience")
    assert found.saving.every == Every(10)


def test_resume_points_come_with_the_evaluations() -> None:
    assert saving(eval_steps=7).every == Every(7)
    assert saving(eval_steps=7, save_steps=20).every == Every(20)
    assert saving(save_steps=0.5).every == Every(50)
    assert saving(save_strategy="steps").every == Every(10)


@pytest.mark.parametrize("how", ["no", "best"])
def test_without_resume_points_the_best_is_still_kept(how: str) -> None:
    found = plan(save_strategy=how)
    assert found.saving.every == Every(0)
    assert found.evaluation.load_best


def test_saving_by_epoch_counts_in_steps_of_an_epoch() -> None:
    assert plan(rows=80, epochs=3, save_strategy="epoch").saving.every == Every(10)


def test_save_steps_that_cannot_take_effect_are_named() -> None:
    for how in ("no", "best", "epoch"):
        found = plan(save_strategy=how, save_steps=5)
        assert f"save_strategy is {how}" in remarks(found, "training_args.save_steps")[0]


def test_save_steps_beyond_the_run_are_warned_about_and_kept() -> None:
    found = plan(save_steps=1000)
    assert found.saving.every == Every(1000)
    assert "no resume point" in remarks(found, "training_args.save_steps")[0]


def test_save_checkpoints_false_means_no_resume_points() -> None:
    strategy = Strategy(
        id="s",
        monitoring=Monitoring(save_checkpoints=False),
        training_args=TrainingArgs(save_steps=10),
    )
    found = plan_for(strategy)
    assert found.saving.every == Every(0)
    assert "save_checkpoints is false" in remarks(found, "training_args.save_steps")[0]


def test_the_number_of_resume_points_is_obeyed() -> None:
    assert saving().total_limit == 3
    assert saving(save_total_limit=2).total_limit == 2


def test_every_step_of_a_short_run_is_logged_and_every_tenth_of_a_long_one() -> None:
    assert logging().every == Every(1)
    assert logging(epochs=2).every == Every(10)
    assert logging(logging_steps=5).every == Every(5)
    assert logging(logging_steps=0.1).every == Every(10)
    assert logging(logging_first_step=False).first_step is False


def test_tensorboard_is_told_when_either_key_asks() -> None:
    assert logging().report_to == ()
    assert logging(report_to=("tensorboard",)).report_to == ("tensorboard",)
    asked = Strategy(id="s", monitoring=Monitoring(log_tensorboard=True))
    assert plan_for(asked).logging.report_to == ("tensorboard",)


def test_trackers_are_told_by_the_list_and_by_the_switch_each_once() -> None:
    monitoring = Monitoring(log_tensorboard=True, use_wandb=True)
    args = TrainingArgs(report_to=("mlflow", "wandb"))
    plan = plan_for(Strategy(id="s", monitoring=monitoring, training_args=args))
    assert plan.logging.report_to == ("mlflow", "wandb", "tensorboard")
    said = {d.field: d.value for d in plan.decisions}
    assert said["report_to"] == "mlflow, wandb"
    assert said["monitoring.use_wandb"] == "true"


def test_the_run_is_named_after_the_strategy_unless_written() -> None:
    assert logging().run_name == "my_training"
    assert logging(run_name="try 2").run_name == "try 2"


def test_a_step_is_due_every_so_many_steps_after_the_delay() -> None:
    assert [s for s in range(1, 13) if Every(3, delay=4).due(s)] == [6, 9, 12]
    assert not any(Every(0).due(step) for step in range(1, 100))
