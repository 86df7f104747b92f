from __future__ import annotations

import pytest

from llamafarm.monitoring.events import Event
from llamafarm.monitoring.pace import Pace

from .events_of_a_run import eval_event, start_event, step_event


def pace_after(*events: tuple[float, Event]) -> Pace:
    pace = Pace()
    for now, event in events:
        pace.add(event, now)
    return pace


def test_nothing_is_promised_before_a_step_was_measured() -> None:
    assert pace_after((0.0, start_event()), (9.0, eval_event(0, 2.0))).seconds_left is None


def test_steps_left_take_as_long_as_those_measured() -> None:
    pace = pace_after(
        (0.0, start_event(total_steps=10)), (2.0, step_event(1)), (4.0, step_event(2))
    )
    assert pace.seconds_left == pytest.approx(8 * 2.0)


@pytest.mark.parametrize("base_first", [True, False])
def test_the_base_evaluation_is_not_taken_for_the_time_of_a_step(base_first: bool) -> None:
    base = (5.0, eval_event(0, 2.0, seconds=5.0))
    start = (5.0 if base_first else 0.0, start_event(total_steps=3, planned_evaluations=1))
    pace = pace_after(*([base, start] if base_first else [start, base]), (6.0, step_event(1)))
    assert pace.seconds_left == pytest.approx(2 * 1.0)


def test_planned_evaluations_that_are_still_to_come_are_counted() -> None:
    pace = pace_after(
        (0.0, start_event(total_steps=4, planned_evaluations=3)),
        (5.0, eval_event(0, 2.0, seconds=5.0)),
        (6.0, step_event(1)),
    )
    assert pace.seconds_left == pytest.approx(3 * 1.0 + 2 * 5.0)


def test_without_a_plan_evaluations_go_on_as_often_as_before() -> None:
    pace = pace_after(
        (0.0, start_event(total_steps=8)),
        (1.0, step_event(1)),
        (2.0, step_event(2)),
        (6.0, eval_event(2, 2.0, seconds=4.0)),
        (7.0, step_event(3)),
        (8.0, step_event(4)),
    )
    assert pace.seconds_left == pytest.approx(4 * 1.0 + 1 * 4.0)


def test_a_resumed_run_counts_only_its_own_steps() -> None:
    pace = pace_after((0.0, start_event(step=90, total_steps=100)), (3.0, step_event(91)))
    assert pace.seconds_left == pytest.approx(9 * 3.0)


def test_the_pace_follows_the_recent_steps() -> None:
    slow = [(10.0 * i, step_event(i)) for i in range(1, 21)]
    fast = [(200.0 + i, step_event(20 + i)) for i in range(1, 31)]
    pace = pace_after((0.0, start_event(total_steps=60)), *slow, *fast)
    assert pace.seconds_left == pytest.approx(10 * 1.0)
