"""`monitoring.log_level`: how much of a run a person is told. Files always get everything."""

from __future__ import annotations

from dataclasses import replace

from llamafarm.monitoring.events import (
    CheckpointEvent,
    EarlyStopEvent,
    Event,
    LogLevelEvent,
    MessageEvent,
    PlanEvent,
    Sink,
)
from llamafarm.monitoring.lines import trouble_text


class AtLogLevel:
    """A display that is shown what the strategy asks for: `warning` leaves out what goes as
    planned, `error` everything; an error itself is no event and always told.
    """

    def __init__(self, display: Sink) -> None:
        self._display = display
        self._level = "info"

    def handle(self, event: Event) -> None:
        """Pass the event on, or what is left of it."""
        if isinstance(event, LogLevelEvent):
            self._level = event.level
        left = event if self._level in ("debug", "info") else self._only_warnings(event)
        if left is not None:
            self._display.handle(left)

    def close(self) -> None:
        """Close the display."""
        self._display.close()

    def _only_warnings(self, event: Event) -> Event | None:
        if self._level == "error":
            return None
        match event:
            case PlanEvent():
                warnings = tuple(d for d in event.decisions if d.source == "warning")
                return replace(event, decisions=warnings) if warnings else None
            case (
                MessageEvent(level="warning")
                | EarlyStopEvent()
                | CheckpointEvent(reason="interrupted")
            ):
                return event
        return None if trouble_text(event) is None else event
