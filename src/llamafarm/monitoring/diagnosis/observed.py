"""What the rules look at: a run so far, of a bounded size whatever its length."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from llamafarm.monitoring.events import (
    EarlyStopEvent,
    EndEvent,
    EvalEvent,
    Event,
    FindingEvent,
    NonFiniteEvent,
    OutOfMemoryEvent,
    SettingsEvent,
    StartEvent,
    StepEvent,
)

# Enough to see a curve by; beyond that, the older half is kept in pairs.
MOST_STRETCHES = 512
MOST_EVALUATIONS = 256
_MOST_NAMED = 32


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some neighbouring steps. loss: per trained token; events: how many step events it is made of;
    clipped: in how many of those the gradient was clipped. Seconds are spent within it.
    """

    step: int
    epoch: float
    loss: float
    tokens: int
    events: int
    learning_rate: float
    grad_norm: float
    clipped: int
    step_seconds: float
    data_seconds: float


class Observed:
    """Grows with the events that are added. settings: None before they are told; device:
    empty before."""

    def __init__(self) -> None:
        self.settings: SettingsEvent | None = None
        self.device = ""
        self.stretches: list[Stretch] = []
        self.evaluations: list[EvalEvent] = []
        self.shortages: list[OutOfMemoryEvent] = []
        self.num_shortages = 0
        self.spikes: list[FindingEvent] = []
        self.num_spikes = 0
        self.num_nonfinite = 0
        self.end: EndEvent | None = None
        self.stopped_early = False
        self.most_memory_bytes = 0
        self.utilisation_sum, self.utilisation_count = 0.0, 0
        self._trained_tokens = 0

    def add(self, event: Event) -> None:
        """Take one event. What a resumed process says of itself replaces what the one before
        said.
        """
        match event:
            case SettingsEvent():
                self.settings, self.end, self.stopped_early = event, None, False
            case StartEvent():
                self.device = event.device
            case StepEvent():
                self._add_step(event)
            case EvalEvent():
                self.evaluations = [e for e in self.evaluations if e.step != event.step]
                self.evaluations.append(event)
                self._thin_evaluations()
            case OutOfMemoryEvent():
                self.num_shortages += 1
                self.shortages = [*self.shortages, event][:_MOST_NAMED]
            case NonFiniteEvent():
                self.num_nonfinite += 1
            case FindingEvent(rule="spike"):
                self.num_spikes += 1
                self.spikes = [*self.spikes, event][:_MOST_NAMED]
            case EarlyStopEvent():
                self.stopped_early = True
            case EndEvent():
                self.end = event

    @property
    def completed(self) -> bool:
        """The run came to its end by itself: what it did not do, it will not do any more."""
        return self.end is not None and self.end.status == "completed"

    @property
    def num_events(self) -> int:
        """How many step events were seen."""
        return sum(stretch.events for stretch in self.stretches)

    @property
    def last_step(self) -> int:
        """The newest step that anything was told of."""
        steps = self.stretches[-1].step if self.stretches else 0
        return max(steps, self.last_evaluation.step if self.last_evaluation else 0)

    @property
    def base(self) -> EvalEvent | None:
        """The evaluation of the base model, where it was a number."""
        return next((e for e in self.evaluations if e.step == 0 and _is_known(e)), None)

    @property
    def best(self) -> EvalEvent | None:
        """The latest evaluation that was the best when it was made; never the base."""
        return next((e for e in reversed(self.evaluations) if e.best and _is_known(e)), None)

    @property
    def last_evaluation(self) -> EvalEvent | None:
        """The newest evaluation, where it was a number; the base's too."""
        last = self.evaluations[-1] if self.evaluations else None
        return last if last is not None and _is_known(last) else None

    def after(self, step: int) -> tuple[EvalEvent, ...]:
        """Evaluations after a step, in order; those that are no number are left out."""
        return tuple(e for e in self.evaluations if e.step > step and _is_known(e))

    def between(self, first: int, last: int) -> tuple[Stretch, ...]:
        """Stretches with a loss that end after step `first` and not after step `last`."""
        return tuple(s for s in self.stretches if first < s.step <= last and math.isfinite(s.loss))

    def _add_step(self, event: StepEvent) -> None:
        limit = self.settings.max_grad_norm if self.settings else 0.0
        clipped = bool(limit) and event.grad_norm > limit
        stretch = Stretch(
            step=event.step,
            epoch=event.epoch,
            loss=event.loss,
            tokens=max(0, event.trained_tokens - self._trained_tokens),
            events=1,
            learning_rate=event.learning_rate,
            grad_norm=event.grad_norm,
            clipped=int(clipped),
            step_seconds=event.step_seconds,
            data_seconds=event.data_seconds,
        )
        # A resumed run takes steps again that were told of before.
        if self.stretches and self.stretches[-1].step >= event.step:
            self.stretches = [s for s in self.stretches if s.step < event.step]
        self._trained_tokens = event.trained_tokens
        self.stretches.append(stretch)
        if len(self.stretches) > MOST_STRETCHES:
            half = len(self.stretches) // 4 * 2
            older = self.stretches[:half]
            pairs = zip(older[::2], older[1::2], strict=True)
            self.stretches = [_joined(a, b) for a, b in pairs] + self.stretches[half:]
        self.most_memory_bytes = max(self.most_memory_bytes, event.memory_bytes)
        if event.device_utilisation is not None:
            self.utilisation_sum += event.device_utilisation
            self.utilisation_count += 1

    def _thin_evaluations(self) -> None:
        """Of the older half every second one goes; never the base, never the best."""
        if len(self.evaluations) <= MOST_EVALUATIONS:
            return
        half, best = MOST_EVALUATIONS // 2, self.best
        older = [
            e
            for number, e in enumerate(self.evaluations[:half])
            if number % 2 == 0 or e.step == 0 or e is best
        ]
        self.evaluations = older + self.evaluations[half:]


def joined(stretches: Iterable[Stretch]) -> Stretch | None:
    """All of them as one; None without any."""
    whole: Stretch | None = None
    for stretch in stretches:
        whole = stretch if whole is None else _joined(whole, stretch)
    return whole


def _joined(first: Stretch, second: Stretch) -> Stretch:
    events = first.events + second.events
    known = [s for s in (first, second) if math.isfinite(s.loss)]
    tokens = sum(s.tokens for s in known)
    loss = sum(s.loss * s.tokens for s in known) / tokens if tokens else math.nan
    return replace(
        second,
        loss=loss,
        tokens=tokens,
        events=events,
        learning_rate=_mean(first, second, first.learning_rate, second.learning_rate),
        grad_norm=_mean(first, second, first.grad_norm, second.grad_norm),
        clipped=first.clipped + second.clipped,
        step_seconds=first.step_seconds + second.step_seconds,
        data_seconds=first.data_seconds + second.data_seconds,
    )


def _mean(first: Stretch, second: Stretch, one: float, other: float) -> float:
    """Over step events; the other value where one is no number."""
    known = [(s.events, v) for s, v in ((first, one), (second, other)) if math.isfinite(v)]
    events = sum(count for count, _ in known)
    return sum(count * value for count, value in known) / events if events else math.nan


def _is_known(event: EvalEvent) -> bool:
    return math.isfinite(event.eval_loss)
