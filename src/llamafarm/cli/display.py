"""What a person sees of a run while it goes on."""

from __future__ import annotations

import sys

from llamafarm.cli.decisions import DecisionPrinter
from llamafarm.monitoring.events import Event, Sink, StartEvent, WorkEvent
from llamafarm.monitoring.fanout import Fanout
from llamafarm.monitoring.log_level import AtLogLevel
from llamafarm.monitoring.progress import progress_sink
from llamafarm.monitoring.work import WorkProgress


def run_display() -> Sink:
    """What was decided, then the progress, as far as the strategy's log level allows."""
    progress = RunAndWork(progress_sink(), WorkProgress(sys.stderr))
    return AtLogLevel(Fanout((DecisionPrinter(), progress)))


class RunAndWork:
    """The display of a run, with that of the work before it (reading the data) and after it (an
    export): only one of them has the screen.
    """

    def __init__(self, run: Sink, work: Sink) -> None:
        self._run = run
        self._work = work
        self._run_began = False
        self._working = False

    def handle(self, event: Event) -> None:
        """To the display whose turn it is."""
        if isinstance(event, WorkEvent):
            if self._run_began and not self._working:
                self._run.close()
            self._working = True
            self._work.handle(event)
            return
        self._run_began = self._run_began or isinstance(event, StartEvent)
        if self._working:
            self._work.close()
            self._working = False
        self._run.handle(event)

    def close(self) -> None:
        """Close both."""
        self._work.close()
        self._run.close()
