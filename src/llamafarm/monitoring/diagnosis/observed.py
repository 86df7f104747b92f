"""What the rules look at: a run so far, of a bounded size whatever its length."""

from __future__ import annotations

from llamafarm.monitoring.events import EndEvent, Event, SettingsEvent
from llamafarm.monitoring.history import LossHistory

_MOST_STEPS = 2000


class Observed:
    """Grows with the events that are added. settings: None before they are told."""

    def __init__(self) -> None:
        self.settings: SettingsEvent | None = None
        self.history = LossHistory(_MOST_STEPS)
        self.finished = False

    def add(self, event: Event) -> None:
        """Take one event."""
        self.history.add(event)
        if isinstance(event, SettingsEvent):
            self.settings = event
        elif isinstance(event, EndEvent):
            self.finished = True
