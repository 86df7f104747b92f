"""Metrics of generated answers inside the evaluations of a run."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import Interrupted
from llamafarm.monitoring.events import EvalEvent, EvalProgressEvent, Event, MessageEvent
from llamafarm.monitoring.run_record import read_run_record
from llamafarm.planning.plan import ANSWERED_ROWS, TrainingPlan
from llamafarm.training.evaluations import read_evaluation

from .runs import Ran, run_plan, tiny_plan
from .test_comparison import asked_data

BROKEN = f"{__name__}.broken"
WORDS = f"{__name__}.words"
calls: list[int] = []


def broken(answers: Sequence[str], references: Sequence[str]) -> float:
    calls.append(len(answers))
    raise RuntimeError("a bug of its author's")


def words(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    return [float(len(answer.split())) for answer in answers]


def measured(plan: TrainingPlan, *names: str, **evaluation: Any) -> TrainingPlan:
    values = {"answer_metrics": names, **evaluation}
    return replace(plan, evaluation=replace(plan.evaluation, **values))


def evaluations(ran: Ran) -> list[EvalEvent]:
    return [e for e in ran.recorded if isinstance(e, EvalEvent)]


@pytest.fixture
def plan(tiny_model_dir: Path, tmp_path: Path) -> TrainingPlan:
    return tiny_plan(tiny_model_dir, tmp_path / "run", batch={"total_steps": 8})


def test_metrics_stand_in_every_record_of_the_run(plan: TrainingPlan) -> None:
    ran = run_plan(measured(plan, "rouge_l", WORDS), data=asked_data(), report=True)
    events = evaluations(ran)
    assert [e.step for e in events] == [0, 4, 8]
    assert all(set(e.metrics) == {"rouge_l", WORDS} for e in events)
    assert ran.summary.base_metrics == events[0].metrics
    best = next(e for e in events if e.step == ran.summary.best_step)
    assert ran.summary.metrics == best.metrics
    record = read_run_record(ran.directory.root)
    assert record.comparison is not None
    assert record.comparison.models[0].metrics == events[0].metrics
    assert [c.score for c in record.comparison.models[1].metric_changes] == ["rouge_l", WORDS]
    assert [a.name for a in record.comparison.samples[0].answers][:2] == ["base", "best"]
    page = (ran.directory.root / "report.html").read_text("utf-8")
    assert f">{WORDS}</th>" in page
    kept = read_evaluation(ran.directory.evaluations, 0)
    assert kept is not None
    assert len(kept.answers) == ANSWERED_ROWS
    assert json.loads(ran.directory.summary_file.read_text())["metrics"][WORDS] > 0


def test_they_do_not_change_what_is_trained(plan: TrainingPlan, tmp_path: Path) -> None:
    with_them = run_plan(measured(plan, WORDS), data=asked_data())
    other = replace(plan, output_dir=tmp_path / "without")
    assert run_plan(other, data=asked_data()).weights_hash == with_them.weights_hash


def test_one_of_them_can_choose_the_best_step(plan: TrainingPlan) -> None:
    chosen = measured(plan, WORDS, metric=WORDS, greater_is_better=False)
    ran = run_plan(chosen, data=asked_data())
    after = [e for e in evaluations(ran) if e.step]
    assert ran.summary.best_metric == min(e.metrics[WORDS] for e in after)
    assert ran.summary.best_step == next(
        e.step for e in after if e.metrics[WORDS] == ran.summary.best_metric
    )


def test_one_that_raises_is_told_and_the_run_goes_on(plan: TrainingPlan) -> None:
    calls.clear()
    ran = run_plan(measured(plan, BROKEN, WORDS), data=asked_data())
    assert ran.summary.status == "completed"
    assert [set(e.metrics) for e in evaluations(ran)] == [{WORDS}] * 3
    assert calls == [ANSWERED_ROWS] * 3
    said = [e.text for e in ran.events if isinstance(e, MessageEvent) and e.level == "warning"]
    assert f"{BROKEN} failed: RuntimeError: a bug of its author's" in said[0]


def test_where_the_metric_that_chooses_fails_no_step_is_the_best(plan: TrainingPlan) -> None:
    ran = run_plan(measured(plan, BROKEN, metric=BROKEN), data=asked_data())
    assert (ran.summary.status, ran.summary.best_step) == ("completed", None)
    assert (ran.directory.final_model / "adapter_model.safetensors").is_file()


def test_rows_without_a_question_are_told(plan: TrainingPlan) -> None:
    ran = run_plan(measured(plan, WORDS))
    said = [e.text for e in ran.events if isinstance(e, MessageEvent)]
    text = "metrics of answers are not measured at step 0: no evaluation row asks anything"
    assert text in said
    assert all(e.metrics == {} for e in evaluations(ran))


def test_a_signal_among_the_answers_repeats_that_evaluation_on_resume(plan: TrainingPlan) -> None:
    rows = len(asked_data().eval or ())

    def on_event(event: Event) -> None:
        if isinstance(event, EvalProgressEvent) and (event.step, event.rows_done) == (4, rows + 2):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_plan(measured(plan, WORDS), data=asked_data(), on_event=on_event)
    ran = run_plan(measured(plan, WORDS), data=asked_data(), resume=True)
    assert [e.step for e in evaluations(ran)] == [0, 4, 8]
    assert all(WORDS in e.metrics for e in evaluations(ran))
