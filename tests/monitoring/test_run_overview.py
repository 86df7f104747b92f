from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from llamafarm.monitoring.run_overview import SORT_KEYS, RunOverview, overview_of, sort_runs

from .events_of_a_run import start_event, step_event
from .report.records import full_record


def test_a_record_becomes_a_line() -> None:
    run = overview_of("first", full_record(Path("first")))
    assert (run.status, run.model, run.rows, run.steps) == (
        "completed",
        "smollm2-135m-instruct",
        96,
        12,
    )
    assert (run.base_eval_loss, run.eval_loss, run.seconds, run.findings) == (2.231, 1.839, 61.0, 1)
    assert run.change == pytest.approx(-17.57, abs=0.01)


def test_a_run_that_goes_on_has_its_steps_and_its_time_so_far() -> None:
    record = full_record(Path("a"), (start_event(total_steps=40), step_event(3)))
    run = overview_of("a", replace(record, status="running"))
    assert (run.steps, run.total_steps, run.seconds, run.eval_loss) == (3, 40, 6.0, None)


def test_runs_are_sorted_with_what_is_not_known_last() -> None:
    # Without a zone, as nobody writes it.
    early = replace(full_record(Path("a")), started=datetime(2025, 1, 1))
    runs = [
        overview_of("early", early),
        overview_of("late", full_record(Path("b"))),
        RunOverview("unknown", Path("c"), "unreadable"),
        replace(overview_of("better", early), eval_loss=1.0),
    ]
    for key in SORT_KEYS:
        assert len(sort_runs(runs, key)) == 4
    assert [run.name for run in sort_runs(runs, "started")] == [
        "late",
        "better",
        "early",
        "unknown",
    ]
    assert [run.name for run in sort_runs(runs, "loss")] == ["better", "early", "late", "unknown"]
    assert [run.name for run in sort_runs(runs, "name")] == ["better", "early", "late", "unknown"]
