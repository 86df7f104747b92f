"""What a person sees of a run while it goes on."""

from __future__ import annotations

import sys

from llamafarm.cli.decisions import DecisionPrinter
from llamafarm.monitoring.events import Event, Sink, WorkEvent
from llamafarm.monitoring.fanout import Fanout
from llamafarm.monitoring.log_level import AtLogLevel
from llamafarm.monitoring.progress import progress_sink
from llamafarm.monitoring.work import WorkProgress


def run_display() -> Sink:
    """What was decided, then the progress, as far as the strategy's log level allows."""
    progress = RunThenWork(progress_sink(), WorkProgress(sys.stderr))
    return AtLogLevel(Fanout((DecisionPrinter(), progress)))


class RunThenWork:
    """The display of a run, which gives way to another one when work begins that is no training."""

    def __init__(self, run: Sink, work: Sink) -> None:
        self._run = run
        self._work = work
        self._working = False

    def handle(self, event: Event) -> None:
        """To the display whose turn it is."""
        if isinstance(event, WorkEvent) and not self._working:
            self._working = True
            self._run.close()
        (self._work if self._working else self._run).handle(event)

    def close(self) -> None:
        """Close the one that is open."""
        (self._work if self._working else self._run).close()
