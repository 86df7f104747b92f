from __future__ import annotations

import math
from dataclasses import replace

import pytest

from llamafarm.monitoring.events import FindingEvent, ResumeEvent
from llamafarm.monitoring.report.charts import MOST_POINTS, Mark, charts_of, charts_of_runs
from llamafarm.monitoring.report.colours import RUN_COLOURS
from llamafarm.monitoring.report.pictures import pictures_of
from tests.monitoring.events_of_a_run import events_of_a_run, step_event


def test_what_was_measured_is_drawn_and_nothing_else() -> None:
    assert [c.key for c in charts_of(events_of_a_run())] == [
        "loss",
        "learning_rate",
        "gradient_norm",
        "throughput",
    ]
    assert charts_of([]) == ()


def test_the_losses_share_a_chart_with_the_base_and_the_best_step() -> None:
    loss = charts_of(events_of_a_run())[0]
    assert [s.name for s in loss.series] == ["training loss", "eval loss"]
    assert loss.series[1].points == ((0, 2.231), (4, 2.0), (8, 1.839), (12, 1.85))
    assert [(level.name, level.value) for level in loss.levels] == [("base model", 2.231)]
    assert loss.best_step == 8


def test_a_loss_that_is_not_finite_leaves_a_gap() -> None:
    events = [step_event(1), step_event(2, math.nan), step_event(3)]
    assert [step for step, _ in charts_of(events)[0].series[0].points] == [1, 3]


def test_a_long_run_is_shortened_and_says_so() -> None:
    events = [step_event(step, float(step)) for step in range(1, 3 * MOST_POINTS + 1)]
    events[4] = replace(events[4], grad_norm=99.0)
    loss, _, norm, _ = charts_of(events)
    assert len(loss.series[0].points) == MOST_POINTS
    assert loss.series[0].points[0] == (3, 2.0)
    assert loss.note == "each point is the mean of 3 logged steps"
    assert norm.series[0].points[1] == (6, 99.0)
    assert norm.note == "each point is the largest of 3 logged steps"


def test_a_noisy_curve_is_smoothed_without_being_moved() -> None:
    events = [step_event(step, 2.0 + step % 2) for step in range(1, 101)]
    faint, smooth = charts_of(events)[0].series
    assert faint.style == "faint"
    assert len(smooth.points) == len(faint.points)
    assert all(value == pytest.approx(2.5, abs=0.2) for _, value in smooth.points)


def test_what_went_wrong_is_marked_at_its_step() -> None:
    found = FindingEvent(step=7, rule="odd", text="that is odd")
    resumed = ResumeEvent(step=4, path="", note="going on after step 4")
    loss = charts_of([*events_of_a_run(), resumed, found])[0]
    assert loss.marks == (Mark(4, "going on after step 4"), Mark(7, "that is odd"))


def test_the_losses_of_several_runs_share_a_chart_with_a_colour_for_each() -> None:
    later = [replace(event, step=event.step + 1) for event in (step_event(1), step_event(2))]
    charts = charts_of_runs({"a": events_of_a_run(), "b": later})
    assert [chart.key for chart in charts] == ["eval_loss", "train_loss"]
    for chart in charts:
        assert [(s.name, s.colour) for s in chart.series] == list(
            zip(("a", "b"), RUN_COLOURS, strict=False)
        )
    assert charts[0].series[1].points == ()
    assert [step for step, _ in charts[1].series[1].points] == [2, 3]
    assert charts_of_runs({"a": [], "b": []}) == ()


def test_losses_that_are_too_large_to_be_drawn_leave_a_gap() -> None:
    events = [step_event(step, 1.5e308 if step % 2 else 2.0) for step in range(1, 101)]
    charts = charts_of(events)
    assert {value for series in charts[0].series for _, value in series.points} == {2.0}
    assert pictures_of(charts)["loss"].startswith(b"\x89PNG")
