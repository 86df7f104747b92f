from __future__ import annotations

import pytest

from llamafarm.decision import Decision
from llamafarm.monitoring.events import (
    BestLostEvent,
    CheckpointEvent,
    EarlyStopEvent,
    Event,
    FindingEvent,
    LogLevelEvent,
    MessageEvent,
    NonFiniteEvent,
    OutOfMemoryEvent,
    PlanEvent,
    SaveFailedEvent,
)
from llamafarm.monitoring.log_level import AtLogLevel

from .events_of_a_run import events_of_a_run

PLANNED = PlanEvent(
    strategy_id="s",
    output_dir="runs/s",
    decisions=(
        Decision("method.r", "8", "recommended", "a small set"),
        Decision("method.alpha", "1", "warning", "a twentieth of r"),
    ),
)
WARNING = MessageEvent(level="warning", text="cut")
NOTICE = MessageEvent(level="notice", text="an old name")
STOPPED = EarlyStopEvent(step=9, best_step=4, evaluations_without_improvement=3)
TROUBLE: list[Event] = [
    NonFiniteEvent(step=3, what="loss", action="skip", rows=()),
    SaveFailedEvent(step=3, text="disk full", kept_step=2),
    BestLostEvent(step=3, lost_step=3, kept_step=2, text="disk full"),
    OutOfMemoryEvent(step=3, during="step", tokens=9, action="smaller parts"),
    FindingEvent(step=3, rule="spike", text="it stands out"),
]
SAVED = CheckpointEvent(step=3, path="c", reason="interrupted", bytes=1, seconds=0.1)
EVERYTHING: list[Event] = [
    PLANNED, *events_of_a_run(), WARNING, NOTICE, *TROUBLE, STOPPED, SAVED
]  # fmt: skip


class Display:
    def __init__(self) -> None:
        self.shown: list[Event] = []
        self.closed = False

    def handle(self, event: Event) -> None:
        self.shown.append(event)

    def close(self) -> None:
        self.closed = True


def shown_at(level: str) -> list[Event]:
    display = Display()
    filtered = AtLogLevel(display)
    for event in (LogLevelEvent(level=level), *EVERYTHING):
        filtered.handle(event)
    filtered.close()
    assert display.closed
    return display.shown


@pytest.mark.parametrize("level", ["debug", "info"])
def test_up_to_info_everything_is_shown(level: str) -> None:
    assert shown_at(level) == [LogLevelEvent(level=level), *EVERYTHING]


def test_at_warning_only_what_needs_attention_is_left() -> None:
    plan, *others = shown_at("warning")
    assert isinstance(plan, PlanEvent)
    assert [d.field for d in plan.decisions] == ["method.alpha"]
    assert others == [WARNING, *TROUBLE, STOPPED, SAVED]


def test_at_error_a_run_is_silent() -> None:
    assert shown_at("error") == []


def test_before_the_strategy_is_read_everything_is_shown() -> None:
    display = Display()
    AtLogLevel(display).handle(NOTICE)
    assert display.shown == [NOTICE]
