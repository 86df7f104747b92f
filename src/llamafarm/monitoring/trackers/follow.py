"""The process beside a run that tells one tracker of it: `python -m …follow NAME METRICS_FILE`.

Its standard input says, in one line, which run it is, and ends when the run does, however that
happens. On its standard output it says once that the tracker takes the run; whatever the tracker's
client prints goes to standard error.
"""

from __future__ import annotations

import math
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

from llamafarm.monitoring.events import EndEvent, EvalEvent, Event, FindingEvent
from llamafarm.monitoring.metrics_file import read_lines
from llamafarm.monitoring.scalars import scalars_of
from llamafarm.monitoring.trackers.registry import TRACKERS
from llamafarm.monitoring.trackers.tracker import RunFacts, Tracker

READY = b"ready\n"
_SECONDS_BETWEEN_READS = 0.5


def main() -> None:
    """Follow the run to its end. An exception ends the process with its traceback."""
    name, path = sys.argv[1], Path(sys.argv[2])
    answer = os.dup(1)
    os.dup2(2, 1)
    facts = RunFacts.from_line(sys.stdin.buffer.readline())
    tracker = TRACKERS[name].load()(facts)
    os.write(answer, READY)
    os.close(answer)
    tell(tracker, follow(path, facts.first_byte, sys.stdin.fileno()))


def tell(tracker: Tracker, events: Iterator[Event]) -> None:
    """Everything of a run. One that did not say how it ended has failed."""
    status, results = "failed", dict[str, float]()
    for event in events:
        if (told := scalars_of(event)) is not None:
            tracker.log(told.values, told.step)
        if isinstance(event, EvalEvent) and event.best:
            results |= {"best_step": float(event.step), "best_eval_loss": event.eval_loss}
        elif isinstance(event, FindingEvent):
            tracker.tell(f"finding/{event.rule}", event.text)
        elif isinstance(event, EndEvent):
            status = event.status
            results |= {"steps": float(event.step), "runtime_seconds": event.seconds}
    tracker.finish(status, {k: v for k, v in results.items() if math.isfinite(v)})


def follow(path: Path, first_byte: int, alive: int) -> Iterator[Event]:
    """The events of a file from a byte on, as they are written, until the descriptor `alive` ends;
    lines that are none are passed over.
    """
    ended, rest, place = False, b"", first_byte
    while not ended:
        ended = _has_ended(alive)
        with path.open("rb") as file:
            file.seek(place)
            content = file.read()
        place += len(content)
        *lines, rest = (rest + content).split(b"\n")
        yield from read_lines(lines, path)[0]


def _has_ended(alive: int) -> bool:
    """Waits a moment for it."""
    readable, _, _ = select.select([alive], [], [], _SECONDS_BETWEEN_READS)
    return bool(readable) and not os.read(alive, 4096)


if __name__ == "__main__":
    main()
