"""What a person sees of a run while it goes on."""

from __future__ import annotations

from llamafarm.cli.decisions import DecisionPrinter
from llamafarm.monitoring.events import Sink
from llamafarm.monitoring.fanout import Fanout
from llamafarm.monitoring.log_level import AtLogLevel
from llamafarm.monitoring.progress import progress_sink


def run_display() -> Sink:
    """What was decided, then the progress, as far as the strategy's log level allows."""
    return AtLogLevel(Fanout((DecisionPrinter(), progress_sink())))
