"""Which metrics a run measures, and what is said of those it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import Problem, StrategyError
from llamafarm.planning.metrics import check_metrics
from llamafarm.planning.plan import TrainingPlan
from llamafarm.strategy.model import Strategy, TrainingArgs
from tests.planning.building import at_line, decision, plan_for, remarks


def strategy(*metrics: str, **args: Any) -> Strategy:
    return Strategy(id="s", metrics=metrics, training_args=TrainingArgs(**args))


def plan(*metrics: str, **args: Any) -> TrainingPlan:
    return plan_for(strategy(*metrics, **args))


def problems_of(found: Strategy, *, allow: bool = False, at: Path = Path()) -> tuple[Problem, ...]:
    with pytest.raises(StrategyError) as caught:
        check_metrics(found, allow_custom=allow, working_directory=at)
    return caught.value.problems


def test_metrics_of_answers_are_planned_with_what_they_cost() -> None:
    found = plan("rouge_l", "loss", "my.own", eval_steps=50)
    assert found.evaluation.answer_metrics == ("rouge_l", "my.own")
    line = decision(found, "metrics")
    assert line.value == "rouge_l, loss, my.own"
    assert "answers to the first 8 evaluation rows, up to 64 tokens each, in every one of" in (
        line.reason
    )


def test_what_is_measured_anyway_costs_nothing() -> None:
    found = plan("loss", "perplexity", "accuracy")
    assert found.evaluation.answer_metrics == ()
    assert "answers" not in decision(found, "metrics").reason


@pytest.mark.parametrize("name", ["rouge_l", "eval_rouge_l"])
def test_a_metric_of_answers_can_choose_the_best_step(name: str) -> None:
    found = plan(metric_for_best_model=name).evaluation
    assert (found.metric, found.greater_is_better) == ("rouge_l", True)
    assert found.answer_metrics == ("rouge_l",)


def test_of_a_function_of_ones_own_the_direction_has_to_be_written() -> None:
    chosen = {"metric_for_best_model": "my.own"}
    with pytest.raises(StrategyError) as caught:
        plan("my.own", **chosen)
    (problem,) = caught.value.problems
    assert problem.message == "nothing says whether more of my.own is better"
    assert "greater_is_better: true" in problem.hint
    found = plan("my.own", **chosen, greater_is_better=False)
    assert (found.evaluation.metric, found.evaluation.greater_is_better) == ("my.own", False)
    assert not [w for w in found.warnings if "keeps the worst" in w]


def test_the_best_metric_has_to_be_measured() -> None:
    with pytest.raises(StrategyError) as caught:
        plan(metric_for_best_model="my.own", greater_is_better=True)
    (problem,) = caught.value.problems
    assert problem.hint == "name my.own under `metrics:` too"


def test_without_evaluations_metrics_have_no_effect_and_that_is_said() -> None:
    found = plan("rouge_l", eval_strategy="no")
    assert "has no effect: nothing is evaluated" in remarks(found, "metrics")[0]


def test_every_metric_that_cannot_be_had_is_named_with_its_line(tmp_path: Path) -> None:
    found = replace_origin(strategy("rogue_l", "my.own", "rouge_l", "loss"))
    unknown, forbidden = problems_of(found)
    assert "did you mean `rouge_l`?" in unknown.hint
    assert unknown.where.endswith(":7")
    assert "--allow-custom-metrics" in forbidden.hint
    _, missing = problems_of(found, allow=True, at=tmp_path)
    assert "cannot be imported" in missing.message


def replace_origin(found: Strategy) -> Strategy:
    return found.model_copy(update={"origins": {"metrics": at_line(7)}})


def test_a_resume_may_measure_other_metrics() -> None:
    from llamafarm.training.identity import run_identity

    found = plan("rouge_l")
    other = replace(found, evaluation=replace(found.evaluation, answer_metrics=()))
    assert run_identity(found) == run_identity(other)
