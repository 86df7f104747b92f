"""What a display knows of a run: the last word of every kind of event."""

from __future__ import annotations

from llamafarm.monitoring.events import (
    EvalEvent,
    EvalProgressEvent,
    Event,
    FindingEvent,
    StartEvent,
    StepEvent,
)
from llamafarm.monitoring.history import LossHistory
from llamafarm.monitoring.pace import Pace

# More than a screen has columns for.
_MOST_STEPS = 2000


class RunState:
    """Follows the events of a run. evaluating is None except while an evaluation goes on."""

    def __init__(self) -> None:
        self.start: StartEvent | None = None
        self.step: StepEvent | None = None
        self.evaluating: EvalProgressEvent | None = None
        self.gap: float | None = None
        self.finding: FindingEvent | None = None
        self.history = LossHistory(_MOST_STEPS)
        self._pace = Pace()

    def add(self, event: Event, now: float) -> None:
        """Take one event that arrived at `now` (seconds of a steady clock)."""
        self.history.add(event)
        self._pace.add(event, now)
        if isinstance(event, StartEvent):
            self.start = event
        elif isinstance(event, StepEvent):
            self.step = event
            self.evaluating = None
        elif isinstance(event, EvalProgressEvent):
            self.evaluating = event
        elif isinstance(event, FindingEvent):
            self.finding = event
        elif isinstance(event, EvalEvent):
            self.evaluating = None
            self.gap = self.history.gap_at(event)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run; 0 before it started."""
        return self.start.total_steps if self.start else 0

    @property
    def steps_done(self) -> int:
        """Optimizer steps behind us, those before a resume included."""
        if self.step:
            return self.step.step
        return self.start.step if self.start else 0

    @property
    def seconds_left(self) -> float | None:
        """Measured, not guessed; None before the first step."""
        return self._pace.seconds_left
