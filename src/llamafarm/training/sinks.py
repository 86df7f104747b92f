"""Who is told of a run: its own files first, then the trackers, then whoever asked for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import yaml

from llamafarm.monitoring.diagnosis import Diagnosis
from llamafarm.monitoring.events import EndEvent, Event, MessageEvent, Sink
from llamafarm.monitoring.fanout import Fanout
from llamafarm.monitoring.metrics_file import MetricsFile
from llamafarm.monitoring.tensorboard import TensorBoardSink, require_tensorboard
from llamafarm.monitoring.trackers import TrackerSink, require_trackers
from llamafarm.monitoring.trackers.tracker import RunFacts, Value
from llamafarm.planning.plan import TrainingPlan
from llamafarm.redact import redact, redact_values
from llamafarm.training.run_directory import RunDirectory

_TENSORBOARD = "tensorboard"


def require_sinks(plan: TrainingPlan) -> None:
    """Called before anything is trained. Raises UserError for a package that is missing."""
    if _TENSORBOARD in plan.logging.report_to:
        require_tensorboard()
    require_trackers(_trackers(plan))


@contextmanager
def all_sinks(
    directory: RunDirectory,
    plan: TrainingPlan,
    facts: RunFacts,
    sinks: Sequence[Sink],
    diagnosis: Diagnosis,
) -> Iterator[Callable[[Event], None]]:
    """metrics.jsonl first: what a person saw is then on disk. Where the disk refuses a file, or a
    tracker the run, the run goes on and the person is told once; again where the last lines of
    metrics.jsonl are lost. What an event shows to be wrong follows it.
    """
    metrics = MetricsFile(directory.metrics_file)
    with contextlib.ExitStack() as opened:
        opened.callback(metrics.close)
        own: list[tuple[MetricsFile | TensorBoardSink | TrackerSink, str]] = [
            (metrics, "the run goes on, and events wait in memory")
        ]
        if _TENSORBOARD in plan.logging.report_to:
            own.append((TensorBoardSink(directory.logs, facts), "the run goes on without them"))
        trackers = []
        for name in _trackers(plan):
            trackers.append(TrackerSink(name, facts, directory.metrics_file))
            # Where the next one refuses the run, this one is not left waiting for it.
            opened.callback(trackers[-1].close)
        own += [(tracker, "the run goes on without it") for tracker in trackers]
        opened.pop_all()
    fanout = Fanout([*(sink for sink, _ in own), *sinks])
    told: set[object] = set()

    def emit(event: Event) -> None:
        found = diagnosis.add(event)
        # The end is the last that is told.
        for finding in found if isinstance(event, EndEvent) else ():
            fanout.handle(finding)
        fanout.handle(event)
        for sink, consequence in own:
            if sink.trouble and sink not in told:
                told.add(sink)
                text = f"{sink.trouble}; {consequence}"
                fanout.handle(MessageEvent(level="warning", text=redact(text)))
            elif not sink.trouble:
                told.discard(sink)
        for finding in () if isinstance(event, EndEvent) else found:
            fanout.handle(finding)

    def tell(text: str) -> None:
        Fanout(sinks).handle(MessageEvent(level="warning", text=redact(text)))

    try:
        yield emit
    finally:
        with contextlib.closing(fanout):
            metrics.close()
            if metrics.trouble:
                tell(f"{metrics.trouble}; the last events of this run are not in it")
            for tracker in trackers:
                tracker.close()
                if tracker.trouble and tracker not in told:
                    tell(tracker.trouble)


def run_facts(
    directory: RunDirectory, plan: TrainingPlan, run_id: str, strategy_yaml: str, *, resumed: bool
) -> RunFacts:
    """The run as others file it; secrets are taken out."""
    file = directory.metrics_file
    return RunFacts(
        id=run_id,
        name=plan.logging.run_name,
        directory=str(directory.root),
        resumed=resumed,
        first_byte=file.stat().st_size if file.exists() else 0,
        config=dict(_flat(redact_values(yaml.safe_load(strategy_yaml)))),
    )


def _trackers(plan: TrainingPlan) -> list[str]:
    return [name for name in plan.logging.report_to if name != _TENSORBOARD]


def _flat(value: object, path: str = "") -> Iterator[tuple[str, Value]]:
    """By path; a list as its text."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else str(name))
    elif value is not None:
        yield path, value if isinstance(value, float | int | str | bool) else str(value)
