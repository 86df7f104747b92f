"""`stop_on_overfitting` ends a real run at the finding, keeps the best, and survives a resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.monitoring.diagnosis import diagnose
from llamafarm.monitoring.events import EarlyStopEvent, EvalEvent, Event, FindingEvent
from llamafarm.planning.plan import Every, TrainingPlan
from tests.training.runs import (
    Killed,
    Ran,
    hash_of,
    run_plan,
    tiny_data,
    tiny_plan,
    write_tiny_model,
)

# Eight rows of random words, over and over: first their frequencies are learnt, then the rows.
ROWS = tiny_data(8)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def plan(model_dir: Path, tmp_path: Path) -> TrainingPlan:
    return tiny_plan(
        model_dir,
        tmp_path / "run",
        num_rows=8,
        adapter=None,
        batch={"total_steps": 80, "num_epochs": 80.0},
        optimizer={"learning_rate": 5e-3, "scheduler": "constant"},
        evaluation={"every": Every(5)},
        saving={"every": Every(5)},
        stop_on_overfitting=True,
    )


def of(run: Ran, kind: type[Event]) -> list[Any]:
    return [event for event in run.recorded if isinstance(event, kind)]


def overfitting(run: Ran) -> FindingEvent:
    (found,) = [f for f in of(run, FindingEvent) if f.rule == "overfitting"]
    assert isinstance(found, FindingEvent)
    return found


def without_times(run: Ran) -> list[Event]:
    kept = [e for e in run.recorded if isinstance(e, EvalEvent | FindingEvent | EarlyStopEvent)]
    return [replace(e, seconds=0.0) if isinstance(e, EvalEvent) else e for e in kept]


def test_overfitting_ends_the_run_and_the_best_is_kept(plan: TrainingPlan) -> None:
    done = run_plan(plan, data=ROWS)
    (stop,) = of(done, EarlyStopEvent)
    found = overfitting(done)
    assert stop.step == found.step < 80
    assert stop.rule == found.text
    best = min(of(done, EvalEvent), key=lambda e: e.eval_loss)
    assert stop.best_step == best.step == found.numbers["best_step"] < found.step
    assert done.summary.status == "completed" and done.summary.best_step == best.step
    kept = plan.output_dir / "checkpoints" / f"checkpoint-{best.step}"
    assert done.weights_hash == hash_of(kept)


def test_without_it_the_same_run_goes_on_and_the_waste_is_told(plan: TrainingPlan) -> None:
    done = run_plan(replace(plan, stop_on_overfitting=False), data=ROWS)
    assert not of(done, EarlyStopEvent) and done.summary.steps == 80
    assert {"overfitting", "wasted_epochs"} <= {f.rule for f in done.summary.findings}


def test_the_findings_of_a_run_are_in_its_summary_and_can_be_found_again(
    plan: TrainingPlan,
) -> None:
    done = run_plan(plan, data=ROWS)
    found = overfitting(done)
    assert [f for f in diagnose(done.recorded) if f.rule == "overfitting"] == [found]
    written = json.loads((plan.output_dir / "summary.json").read_text())["findings"]
    (entry,) = [item for item in written if item["rule"] == "overfitting"]
    assert entry == {
        "rule": "overfitting",
        "step": found.step,
        "text": found.text,
        "confidence": found.confidence,
        "numbers": dict(found.numbers),
        "advice": found.advice,
        "patch": dict(found.patch),
        "rows": [],
    }


@pytest.mark.parametrize("kill", ["before", "at", "after"])
def test_a_run_that_was_killed_stops_where_it_would_have_stopped(
    plan: TrainingPlan, kill: str
) -> None:
    whole = run_plan(replace(plan, output_dir=plan.output_dir.parent / "whole"), data=ROWS)
    end = overfitting(whole).step

    def dies(event: Event) -> None:
        at = {
            "before": event.kind == "step" and getattr(event, "step", 0) == end - 2,
            "at": isinstance(event, FindingEvent) and event.rule == "overfitting",
            "after": isinstance(event, EarlyStopEvent),
        }
        if at[kill]:
            raise Killed

    with pytest.raises(Killed):
        run_plan(plan, data=ROWS, on_event=dies)
    resumed = run_plan(plan, data=ROWS, resume=True)
    assert without_times(resumed) == without_times(whole)
    assert resumed.weights_hash == whole.weights_hash
    assert replace(resumed.summary, **of_this_machine(whole)) == whole.summary


def of_this_machine(run: Ran) -> dict[str, Any]:
    summary = run.summary
    return {
        "runtime_seconds": summary.runtime_seconds,
        "tokens_per_second": summary.tokens_per_second,
        "peak_memory_bytes": summary.peak_memory_bytes,
        "findings": summary.findings,
    }
