"""One sink that stands for several."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from llamafarm.monitoring.events import Event, Sink


class Fanout:
    """Sends each event to every sink, in the order given."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = tuple(sinks)

    def handle(self, event: Event) -> None:
        """A sink that cannot take an event stops the run: metrics with lines missing are worse."""
        for sink in self._sinks:
            sink.handle(event)

    def close(self) -> None:
        """Close every sink, also when one of them fails to."""
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)
