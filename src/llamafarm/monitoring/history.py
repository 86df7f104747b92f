"""The losses of a run so far: what the display, the summary and the curves are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from llamafarm.monitoring.events import BestLostEvent, EvalEvent, Event, StepEvent

Point = tuple[int, float]
"""(optimizer step, loss)"""


class LossHistory:
    """Grows with the events that are added. Non-finite losses are left out.

    most_steps: beyond so many, the older half is kept in pairs, so that a display of any run has a
    bounded size; None: all are kept.
    """

    def __init__(self, most_steps: int | None = None) -> None:
        self._most_steps = most_steps
        self.steps: list[StepEvent] = []
        self.evaluations: list[EvalEvent] = []
        self._lost_steps: set[int] = set()

    @classmethod
    def of(cls, events: Iterable[Event]) -> LossHistory:
        """The history of a finished run."""
        history = cls()
        for event in events:
            history.add(event)
        return history

    def add(self, event: Event) -> None:
        """Keep what a step or an evaluation says; other events say nothing here."""
        if isinstance(event, StepEvent):
            self.steps.append(event)
            if self._most_steps and len(self.steps) > self._most_steps:
                self._pair_older_half()
        elif isinstance(event, EvalEvent):
            self.evaluations.append(event)
            self._lost_steps.discard(event.step)
        elif isinstance(event, BestLostEvent):
            # What was better than the one that is kept is lost too.
            lost = (e.step for e in self.evaluations if e.best and e.step > event.kept_step)
            self._lost_steps.update(lost)

    def _pair_older_half(self) -> None:
        half = len(self.steps) // 2 // 2 * 2
        older, recent = self.steps[:half], self.steps[half:]
        pairs = zip(older[::2], older[1::2], strict=True)
        self.steps = [_both(first, second) for first, second in pairs] + recent

    @property
    def train_points(self) -> list[Point]:
        """The training loss of every logged step."""
        return [(s.step, s.loss) for s in self.steps if math.isfinite(s.loss)]

    @property
    def eval_points(self) -> list[Point]:
        """The loss of every evaluation, the base model's (step 0) included."""
        return [(e.step, e.eval_loss) for e in self.evaluations if math.isfinite(e.eval_loss)]

    @property
    def base(self) -> EvalEvent | None:
        """The evaluation of the base model."""
        return next((e for e in self.evaluations if e.step == 0), None)

    @property
    def last_evaluation(self) -> EvalEvent | None:
        """The most recent evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def best(self) -> EvalEvent | None:
        """The evaluation that was the best one when it was made, and whose weights are there."""
        there = (e for e in reversed(self.evaluations) if e.step not in self._lost_steps)
        return next((e for e in there if e.best), None)

    def train_loss_at(self, step: int) -> float | None:
        """Training loss per trained token over the steps since the evaluation before `step`, `step`
        included.

        One step alone is too noisy to be compared with an evaluation.
        """
        since = max((e.step for e in self.evaluations if e.step < step), default=0)
        total, tokens, seen = 0.0, 0, 0
        for event in self.steps:
            new_tokens, seen = event.trained_tokens - seen, event.trained_tokens
            if since < event.step <= step and math.isfinite(event.loss):
                total += event.loss * new_tokens
                tokens += new_tokens
        return total / tokens if tokens > 0 else None

    def gap_at(self, evaluation: EvalEvent) -> float | None:
        """Eval loss minus training loss: what the model knows of its training data and not of other
        data.
        """
        train_loss = self.train_loss_at(evaluation.step)
        return None if train_loss is None else evaluation.eval_loss - train_loss


def _both(first: StepEvent, second: StepEvent) -> StepEvent:
    """The later event, with the mean of both losses; the later loss where one is not finite."""
    if not (math.isfinite(first.loss) and math.isfinite(second.loss)):
        return second if math.isfinite(second.loss) else replace(second, loss=first.loss)
    return replace(second, loss=(first.loss + second.loss) / 2)
