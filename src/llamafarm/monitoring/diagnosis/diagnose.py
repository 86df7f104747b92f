"""Findings about a run, from its events alone: while it goes on, or of a finished one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llamafarm.monitoring.diagnosis.generalisation import (
    overfitting,
    suspiciously_low_loss,
    wasted_epochs,
)
from llamafarm.monitoring.diagnosis.learning import (
    adapter_not_learning,
    learning_rate_too_high,
    learning_rate_too_low,
    unstable_loss,
)
from llamafarm.monitoring.diagnosis.machine import memory_pressure, slow_training
from llamafarm.monitoring.diagnosis.observed import Observed
from llamafarm.monitoring.diagnosis.progress import plateau, underfitting
from llamafarm.monitoring.events import EndEvent, EvalEvent, Event, FindingEvent

Rule = Callable[[Observed], FindingEvent | None]

# In the order in which a person would act on them.
RULES: tuple[Rule, ...] = (
    suspiciously_low_loss,
    learning_rate_too_high,
    unstable_loss,
    adapter_not_learning,
    learning_rate_too_low,
    overfitting,
    underfitting,
    plateau,
    wasted_epochs,
    memory_pressure,
    slow_training,
)

OVERFITTING, SPIKE = "overfitting", "spike"


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
    """The findings of a run that is over, or of what there is of one. What it found itself is not
    counted, but for its spikes: only the run saw their rows.
    """
    diagnosis = Diagnosis()
    found: list[FindingEvent] = []
    for event in events:
        if isinstance(event, FindingEvent) and event.rule != SPIKE:
            continue
        if isinstance(event, FindingEvent):
            found.append(event)
        found += diagnosis.add(event)
    return tuple(found)
