"""Findings about a run, from its events alone: while it goes on, or of a finished one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llamafarm.monitoring.diagnosis.observed import Observed
from llamafarm.monitoring.events import EndEvent, EvalEvent, Event, FindingEvent

Rule = Callable[[Observed], FindingEvent | None]

RULES: tuple[Rule, ...] = ()

OVERFITTING = "overfitting"


class Diagnosis:
    """Follows a run. Every rule speaks once; earlier: events of the processes before this one."""

    def __init__(self, earlier: Iterable[Event] = ()) -> None:
        self._observed = Observed()
        self._told: set[str] = set()
        self._overfitting = ""
        for event in earlier:
            self._take(event)

    def add(self, event: Event) -> tuple[FindingEvent, ...]:
        """What this event lets be seen for the first time."""
        self._take(event)
        if not isinstance(event, EvalEvent | EndEvent):
            return ()
        found = [f for rule in RULES if (f := rule(self._observed)) and f.rule not in self._told]
        for finding in found:
            self._take(finding)
        return tuple(found)

    @property
    def overfitting(self) -> str:
        """The text of that finding; empty while there is none."""
        return self._overfitting

    def _take(self, event: Event) -> None:
        self._observed.add(event)
        if isinstance(event, FindingEvent):
            self._told.add(event.rule)
            if event.rule == OVERFITTING:
                self._overfitting = event.text


def diagnose(events: Iterable[Event]) -> tuple[FindingEvent, ...]:
    """The findings of a run that is over, or of what there is of one; its own are not counted."""
    diagnosis = Diagnosis()
    return tuple(
        finding
        for event in events
        if not isinstance(event, FindingEvent)
        for finding in diagnosis.add(event)
    )
