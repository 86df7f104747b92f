"""What it costs to watch a run, and to read it afterwards: `python -m bench.watching RUN`.

The events of a finished run are repeated to runs of many steps. The first table is what the record,
the findings and the display take of a step in CPU time, where each of the last steps is painted;
`report` and `runs` are timed as commands.
Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from llamafarm.monitoring.diagnosis import Diagnosis
from llamafarm.monitoring.events import EndEvent, EvalEvent, Event, Sink, StartEvent, StepEvent
from llamafarm.monitoring.metrics_file import MetricsFile, event_line, read_events
from llamafarm.monitoring.progress import LiveProgress, PlainProgress

LENGTHS = (100, 1_000, 10_000, 100_000)
STEPS_BETWEEN_EVALUATIONS = 100
PAINTED = 1_000


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run directory")
    parser.add_argument("--steps", type=int, nargs="*", default=LENGTHS)
    arguments = parser.parse_args()
    events = read_events(arguments.run / "metrics.jsonl")
    lines = ["| steps | record | findings | plain lines | live screen | together |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: | ---: |"]
    lines += [_row_of_a_step(events, steps) for steps in arguments.steps]
    lines += ["", "| steps | metrics.jsonl | `report` | report.html | `runs` |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: |"]
    lines += [_row_of_reading(arguments.run, events, steps) for steps in arguments.steps]
    sys.stdout.write("\n".join(lines) + "\n")


def lengthened(events: Sequence[Event], steps: int) -> Iterator[Event]:
    """The same run with that many steps: its step and evaluation events in turn, renumbered."""
    turns = [e for e in events if isinstance(e, StepEvent)]
    evaluations = [e for e in events if isinstance(e, EvalEvent) and e.step]
    begun = False
    for event in events:
        if isinstance(event, StepEvent | EvalEvent) and event.step:
            if not begun:
                begun = True
                yield from _many(turns, evaluations, steps)
        elif isinstance(event, StartEvent):
            yield replace(event, total_steps=steps)
        elif isinstance(event, EndEvent):
            yield replace(event, step=steps)
        else:
            yield event


def _many(
    turns: Sequence[StepEvent], evaluations: Sequence[EvalEvent], steps: int
) -> Iterator[Event]:
    seconds = turns[-1].seconds / len(turns)
    for step in range(1, steps + 1):
        turn = turns[(step - 1) % len(turns)]
        epoch = step / steps
        yield replace(turn, step=step, epoch=epoch, seconds=step * seconds, tokens=step * 1000)
        if step % STEPS_BETWEEN_EVALUATIONS == 0:
            evaluation = evaluations[step // STEPS_BETWEEN_EVALUATIONS % len(evaluations)]
            yield replace(evaluation, step=step, epoch=epoch, best=False)


class _Terminal(io.StringIO):
    """Takes what a terminal would."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def _row_of_a_step(events: Sequence[Event], steps: int) -> str:
    run = list(lengthened(events, steps))
    with tempfile.TemporaryDirectory() as scratch:
        record = MetricsFile(Path(scratch) / "metrics.jsonl")
        took = [_seconds(record, run), _seconds(_Findings(), run)]
    took.append(_seconds(PlainProgress(io.StringIO()), run))
    per_step = [seconds / steps for seconds in took]
    per_step.append(_seconds_painted(run) / min(steps, PAINTED))
    per_step.append(per_step[0] + per_step[1] + per_step[3])
    cells = [f"{1e6 * seconds:,.0f} us" for seconds in per_step]
    return f"| {steps:,} | {' | '.join(cells)} |"


def _seconds_painted(run: Sequence[Event]) -> float:
    """By the screen's clock a second passes between two of the last events and none before, so that
    each of these is painted.
    """
    clock = _Clock()
    screen = LiveProgress(_Terminal(), clock)
    first = max(0, len(run) - PAINTED)
    for event in run[:first]:
        screen.handle(event)
    return _seconds(screen, run[first:], clock)


class _Clock:
    """Goes when it is told to. now: in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Findings:
    """The rules as the run asks them."""

    def __init__(self) -> None:
        self._diagnosis = Diagnosis()

    def handle(self, event: Event) -> None:
        self._diagnosis.add(event)

    def close(self) -> None:
        """Nothing is open."""


def _seconds(sink: Sink, events: Sequence[Event], clock: _Clock | None = None) -> float:
    begun = time.process_time()
    for event in events:
        if clock is not None:
            clock.now += 1.0
        sink.handle(event)
    took = time.process_time() - begun
    sink.close()
    return took


def _row_of_reading(run: Path, events: Sequence[Event], steps: int) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "runs" / "run"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("*.safetensors", "checkpoint-*"))
        metrics = copy / "metrics.jsonl"
        with metrics.open("wb") as file:
            file.writelines(event_line(e) for e in lengthened(events, steps) if e.recorded)
        report = _seconds_of("report", str(copy))
        listed = _seconds_of("runs", str(copy.parent))
        sizes = [f"{p.stat().st_size / 1e6:.1f} MB" for p in (metrics, copy / "report.html")]
    return f"| {steps:,} | {sizes[0]} | {report:.1f} s | {sizes[1]} | {listed:.1f} s |"


def _seconds_of(*arguments: str) -> float:
    begun = time.monotonic()
    command = [sys.executable, "-m", "llamafarm", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
