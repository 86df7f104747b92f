from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm.monitoring.events import Event, FindingEvent
from llamafarm.monitoring.run_state import RunState
from llamafarm.monitoring.screen import screen_lines

from .events_of_a_run import (
    eval_event,
    eval_progress_event,
    events_of_a_run,
    start_event,
    step_event,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "monitoring"


def state_after(events: list[Event]) -> RunState:
    state = RunState()
    for second, event in enumerate(events):
        state.add(event, float(second))
    return state


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_looks_as_agreed(width: int) -> None:
    state = state_after(events_of_a_run()[:10])
    screen = "\n".join(screen_lines(state, width, 30)) + "\n"
    assert screen == (GOLDEN / f"screen_{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int, ascii_only: bool) -> None:
    lines = screen_lines(state_after(events_of_a_run()), width, 40, ascii_only=ascii_only)
    assert max(len(line) for line in lines) < width
    assert all(line.isascii() for line in lines) or not ascii_only


def test_the_memory_and_the_last_finding_are_on_the_screen() -> None:
    state = state_after([start_event(), replace(step_event(4), memory_bytes=3 * 2**30)])
    assert "3.0 GiB" in screen_lines(state, 80, 5)[1]
    for rule in ("spike", "overfitting"):
        finding = FindingEvent(step=4, rule=rule, text=f"{rule}: the loss rose by far too much")
        state.add(finding, 9.0)
    assert screen_lines(state, 80, 5)[2] == (
        "found at step 4: overfitting: the loss rose by far too much"
    )
    assert screen_lines(state, 30, 5)[2] == "found at step 4: overfitting…"
    assert screen_lines(state, 30, 5, ascii_only=True)[2] == "found at step 4: overfitti..."


def test_a_low_terminal_gets_no_curves() -> None:
    assert len(screen_lines(state_after(events_of_a_run()), 80, 10)) == 2


def test_numbers_that_do_not_fit_are_left_out_from_the_end() -> None:
    state = state_after(events_of_a_run()[:10])
    assert screen_lines(state, 30, 5)[1] == "loss 1.850   eval 2.000"


def test_the_bar_is_the_evaluation_s_while_one_goes_on() -> None:
    state = state_after([start_event(), step_event(4), eval_progress_event(5)])
    bar = screen_lines(state, 80, 5)[0]
    assert bar.startswith("evaluating   ━")
    assert "row 5/10   50 %" in bar
    state.add(eval_event(4, 2.0), 9.0)
    assert screen_lines(state, 80, 5)[0].startswith("training ")


def test_the_bar_is_as_full_as_the_run_is_done() -> None:
    state = state_after([start_event(total_steps=4), step_event(1)])
    bar = screen_lines(state, 80, 5)[0]
    assert bar.count("━") / (bar.count("━") + bar.count("─")) == pytest.approx(0.25, abs=0.02)
    assert "step 1/4   25 %   eta 0:03" in bar


def test_before_anything_is_known_there_is_an_empty_bar() -> None:
    lines = screen_lines(RunState(), 60, 30)
    assert "━" not in lines[0] and "step 0/0" in lines[0]
    assert lines[1:] == [""]


def test_a_resumed_run_starts_where_it_stopped() -> None:
    assert "step 6/12   50 %" in screen_lines(state_after([start_event(step=6)]), 80, 5)[0]
