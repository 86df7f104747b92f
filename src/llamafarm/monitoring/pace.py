"""How long the rest of a run takes, from what was measured in it: evaluations included."""

from __future__ import annotations

from collections import deque

from llamafarm.monitoring.events import EvalEvent, Event, StartEvent, StepEvent

_RECENT_STEP_EVENTS = 20


class Pace:
    """Follows the events of one process with the time at which each arrived (seconds of a steady
    clock).

    The time of a step is everything between two step events except evaluations: checkpoints and
    waiting for data are in it.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque(maxlen=_RECENT_STEP_EVENTS + 1)
        self._start = StartEvent(
            step=0,
            total_steps=0,
            train_rows=0,
            eval_rows=0,
            trainable_parameters=0,
            device="",
            packed=False,
        )
        self._evaluations: list[EvalEvent] = []
        self._seconds_in_evaluations = 0.0

    def add(self, event: Event, now: float) -> None:
        """Take one event that arrived at `now`."""
        if isinstance(event, StartEvent):
            self._start = event
        if isinstance(event, StartEvent | StepEvent):
            self._marks.append((event.step, now - self._seconds_in_evaluations))
        elif isinstance(event, EvalEvent):
            self._evaluations.append(event)
            self._seconds_in_evaluations += event.seconds

    @property
    def seconds_left(self) -> float | None:
        """The steps to do at the pace of the recent ones, plus the evaluations to come; None before
        any step.
        """
        if len(self._marks) < 2:
            return None
        (first_step, first_time), (step, time) = self._marks[0], self._marks[-1]
        if step <= first_step:
            return None
        steps_left = self._start.total_steps - step
        return steps_left * (time - first_time) / (
            step - first_step
        ) + self._evaluation_seconds_left(step)

    def _evaluation_seconds_left(self, step: int) -> float:
        if not self._evaluations:
            return 0.0
        done = len(self._evaluations)
        if self._start.planned_evaluations:
            left = float(max(0, self._start.planned_evaluations - done))
        else:
            after_start = sum(e.step > self._start.step for e in self._evaluations)
            left = after_start * (self._start.total_steps - step) / (step - self._start.step)
        return left * self._seconds_in_evaluations / done
