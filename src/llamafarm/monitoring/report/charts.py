"""What is drawn of a run: series of points, whoever draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from llamafarm.monitoring.events import (
    CheckpointEvent,
    EarlyStopEvent,
    Event,
    ResumeEvent,
    StepEvent,
)
from llamafarm.monitoring.history import LossHistory, Point
from llamafarm.monitoring.lines import trouble_text
from llamafarm.monitoring.report.colours import RUN_COLOURS

# More than a wide screen has columns for.
MOST_POINTS = 1200
_SMOOTHED_SHARE = 0.05
# Far beyond any loss; sums of such numbers cannot be held, nor an axis of them divided.
_LARGEST = 1e100

Style = Literal["line", "faint", "marks"]
_Joined = Literal["mean", "largest", "last"]

_JOIN: Mapping[_Joined, Callable[[Sequence[float]], float]] = {
    "mean": fmean,
    "largest": max,
    "last": lambda values: values[-1],
}


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. style: a line, a faint line behind others, or marks joined by a line; colour: that
    of its style where empty.
    """

    name: str
    points: tuple[Point, ...]
    style: Style = "line"
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a step, in words."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line to compare with."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing. key: a word for file names; unit: of its values, empty for none; note: what a
    reader has to know of the points.
    """

    key: str
    title: str
    unit: str
    series: tuple[Series, ...]
    levels: tuple[Level, ...] = ()
    marks: tuple[Mark, ...] = ()
    best_step: int | None = None
    note: str = ""


def charts_of_runs(runs: Mapping[str, Sequence[Event]]) -> tuple[Chart, ...]:
    """The losses of several runs, one colour a run. runs: the events of each, by its name."""
    colours = {name: RUN_COLOURS[i % len(RUN_COLOURS)] for i, name in enumerate(runs)}
    found = {name: LossHistory.of(events) for name, events in runs.items()}
    evaluated = [
        Series(name, _drawn(history.eval_points), "marks", colours[name])
        for name, history in found.items()
    ]
    trained = []
    note = ""
    for name, history in found.items():
        points, shortened = _shortened(_drawn(history.train_points), "mean")
        note = note or shortened
        trained.append(Series(name, _smoothed(points) or points, "line", colours[name]))
    charts = (
        Chart("eval_loss", "Eval loss", "", tuple(evaluated)),
        Chart("train_loss", "Training loss, smoothed", "", tuple(trained), note=note),
    )
    return tuple(c for c in charts if any(len(s.points) > 1 for s in c.series))


def charts_of(events: Sequence[Event]) -> tuple[Chart, ...]:
    """The charts that there is something to draw for, the losses first."""
    history = LossHistory.of(events)
    charts = [
        _loss(history, _marks(events)),
        _chart("learning_rate", "", history, lambda e: e.learning_rate, "last"),
        _chart("gradient_norm", "", history, lambda e: e.grad_norm, "largest"),
        _chart("throughput", "tokens/s", history, lambda e: e.tokens_per_second, "mean"),
        _chart("memory", "GiB", history, lambda e: e.memory_bytes / 1024**3, "largest"),
    ]
    return tuple(c for c in charts if any(len(s.points) > 1 for s in c.series))


def _loss(history: LossHistory, marks: tuple[Mark, ...]) -> Chart:
    points, note = _shortened(_drawn(history.train_points), "mean")
    smooth = _smoothed(points)
    train = (
        (Series("training loss", points, "faint"), Series("smoothed", smooth))
        if smooth
        else (Series("training loss", points),)
    )
    evaluations = _drawn(history.eval_points)
    base, best = history.base, history.best
    levels = (Level("base model", base.eval_loss),) if base and base.step == 0 else ()
    return Chart(
        key="loss",
        title="Loss",
        unit="",
        series=(*train, *((Series("eval loss", evaluations, "marks"),) if evaluations else ())),
        levels=tuple(level for level in levels if abs(level.value) < _LARGEST),
        marks=marks,
        best_step=best.step if best else None,
        note=note,
    )


def _chart(
    key: str,
    unit: str,
    history: LossHistory,
    value: Callable[[StepEvent], float],
    joined: _Joined,
) -> Chart:
    found = _drawn([(e.step, value(e)) for e in history.steps])
    # What nothing measured is 0 in every step.
    points, note = _shortened(found if any(v for _, v in found) else [], joined)
    name = key.replace("_", " ")
    return Chart(key, name.capitalize(), unit, (Series(name, points),), note=note)


def _drawn(points: Sequence[Point]) -> tuple[Point, ...]:
    """Those that are numbers, and can be drawn."""
    return tuple((step, value) for step, value in points if abs(value) < _LARGEST)


def _marks(events: Sequence[Event]) -> tuple[Mark, ...]:
    """What went wrong, or changed the course, at its step."""
    marks = []
    step = 0
    for event in events:
        step = getattr(event, "step", step)
        if (text := _mark_text(event)) is not None:
            marks.append(Mark(step, text))
    return tuple(marks)


def _mark_text(event: Event) -> str | None:
    match event:
        case ResumeEvent():
            return event.note or "resumed"
        case EarlyStopEvent():
            return event.rule or f"stopped early; step {event.best_step} is kept"
        case CheckpointEvent(reason="interrupted"):
            return "interrupted, and saved"
    return trouble_text(event)


def _shortened(points: Sequence[Point], joined: _Joined) -> tuple[tuple[Point, ...], str]:
    """At most MOST_POINTS of them, each made of the same number of neighbours and put at the last
    one's step; and the note that says so.
    """
    size = -(-len(points) // MOST_POINTS) or 1
    if size == 1:
        return tuple(points), ""
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    made = tuple((group[-1][0], _JOIN[joined]([v for _, v in group])) for group in groups)
    return made, f"each point is the {joined} of {size:,} logged steps"


def _smoothed(points: Sequence[Point]) -> tuple[Point, ...]:
    """The mean over a window around each point; empty where there are too few to gain by it."""
    reach = round(len(points) * _SMOOTHED_SHARE / 2)
    if reach < 1:
        return ()
    values = [value for _, value in points]
    means = (fmean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values)))
    return tuple((step, mean) for (step, _), mean in zip(points, means, strict=True))
