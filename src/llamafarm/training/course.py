"""What a run does between two steps, whatever takes the steps: when it evaluates, what that comes
to, which step is the best, when it is over, and what is told of it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from llamafarm.errors import Interrupted, RunError, listed
from llamafarm.evaluation.answers import Answered
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.monitoring.events import (
    EarlyStopEvent,
    EvalEvent,
    NonFiniteEvent,
    StartEvent,
    StepEvent,
)
from llamafarm.training.evaluations import RowLossStore
from llamafarm.training.job import TrainingJob
from llamafarm.training.keeper import CheckpointKeeper
from llamafarm.training.settings import settings_event
from llamafarm.training.state import LoopState

# Where all of the first steps are skipped, the fault is not in a row.
STEPS_WITHOUT_ONE = 20


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """Of a step, and of the device after it."""

    learning_rate: float
    grad_norm: float
    memory_bytes: int = 0
    device_utilisation: float | None = None


class Course:
    """One run's way from its state to its end. The state changes only here and in the step."""

    def __init__(self, job: TrainingJob, keeper: CheckpointKeeper, state: LoopState) -> None:
        self.job, self.keeper, self.state = job, keeper, state
        self._plan, self._emit = job.plan, job.emit
        self._evaluations = RowLossStore(job)
        self._clock = time.monotonic()

    # When.

    @property
    def evaluation_due(self) -> bool:
        """Whether this state is to be evaluated, and has not been."""
        plan, state = self._plan.evaluation, self.state
        if not plan.enabled or self.job.data.eval is None or state.evaluated_step >= state.step:
            return False
        if state.step == 0:
            return plan.on_start
        return plan.every.due(state.step) or self.at_end

    @property
    def log_due(self) -> bool:
        """Whether the step that was just taken is told."""
        step, logging = self.state.step, self._plan.logging
        return logging.every.due(step) or self.at_end or (step == 1 and logging.first_step)

    @property
    def save_due(self) -> bool:
        """Whether this state is to be saved."""
        return self.keeper.due(self.state, last=self.is_over)

    @property
    def at_end(self) -> bool:
        """Whether every step has been taken."""
        return self.state.step >= self._plan.batch.total_steps

    @property
    def is_over(self) -> bool:
        """Whether no step follows."""
        return self.at_end or self.state.stopped_early

    @property
    def planned_evaluations(self) -> int:
        """How many are left for this process."""
        plan, total = self._plan.evaluation, self._plan.batch.total_steps
        if not plan.enabled or self.job.data.eval is None:
            return 0
        due = {s for s in range(self.state.step + 1, total + 1) if plan.every.due(s)} | {total}
        first = self.state.step == 0 and plan.on_start
        return len([s for s in due if s > self.state.evaluated_step]) + int(first)

    # What is told.

    def announce(self, *, trainable_parameters: int, device: str, packed: bool) -> None:
        """Before the first step of this process."""
        train_rows, eval_rows = len(self.job.data.train), len(self.job.data.eval or ())
        self._emit(settings_event(self._plan, train_rows, eval_rows))
        self._emit(
            StartEvent(
                step=self.state.step,
                total_steps=self._plan.batch.total_steps,
                train_rows=train_rows,
                eval_rows=eval_rows,
                trainable_parameters=trainable_parameters,
                device=device,
                packed=packed,
                planned_evaluations=self.planned_evaluations,
            )
        )

    def tell_step(self, numbers: StepNumbers) -> None:
        """The steps since the last one that was told."""
        state = self.state
        # NaN where every step since the last event was left out: the last loss is not this one's.
        loss = state.loss_sum / state.loss_tokens if state.loss_tokens else math.nan
        self.tick()
        self._emit(
            StepEvent(
                step=state.step,
                epoch=state.epoch,
                loss=loss,
                learning_rate=numbers.learning_rate,
                grad_norm=numbers.grad_norm,
                tokens=state.tokens,
                trained_tokens=state.trained_tokens,
                tokens_per_second=state.window_tokens / max(state.window_seconds, 1e-9),
                seconds=state.seconds,
                step_seconds=state.window_seconds,
                data_seconds=state.window_data_seconds,
                memory_bytes=numbers.memory_bytes,
                device_utilisation=numbers.device_utilisation,
            )
        )
        state.begin_window()

    def tick(self) -> None:
        """Bring the seconds of the state up to now."""
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now

    # What an evaluation comes to.

    def take_result(self, result: LossResult, answered: Answered, seconds: float) -> None:
        """Keep it, tell it, and see whether it is the best, or one too many without improvement.

        Raises RunError where it is not finite, unless such are left out.
        """
        state = self.state
        state.evaluated_step = state.step
        state.eval_loss = result.loss
        if state.step == 0:
            state.base_eval_loss = result.loss
        change, change_error = self._evaluations.change_from(state.best_step, result.by_row)
        best = self._is_best(result, answered) if state.step else False
        self._evaluations.keep(state.step, result.by_row, answered.rows, answered.metrics)
        self._emit(
            EvalEvent(
                step=state.step,
                epoch=state.epoch,
                eval_loss=result.loss,
                perplexity=result.perplexity,
                accuracy=result.accuracy,
                rows=result.rows,
                trained_tokens=result.trained_tokens,
                seconds=seconds,
                best=best,
                metrics={name: found.value for name, found in answered.metrics.items()},
                standard_error=result.by_row.standard_error,
                change=change,
                change_standard_error=change_error,
            )
        )
        if not math.isfinite(result.loss):
            self._refuse_evaluation(result)
        patience = self._plan.evaluation.patience
        rule = self.job.ends_for()
        waited = bool(patience) and state.evaluations_without_improvement >= patience
        if (waited or rule) and not self.at_end:
            state.stopped_early = True
            self._emit(
                EarlyStopEvent(
                    step=state.step,
                    best_step=state.best_step,
                    evaluations_without_improvement=state.evaluations_without_improvement,
                    rule="" if waited else rule,
                )
            )

    def _refuse_evaluation(self, result: LossResult) -> None:
        rows = self.job.data.eval
        at_fault = [i for i, loss in enumerate(result.by_row.losses) if not math.isfinite(loss)]
        sources = tuple(str(rows.source(index)) for index in at_fault) if rows else ()
        step = self.state.step
        self.tell_non_finite(step, "evaluation loss", sources)
        if self._plan.on_nonfinite == "stop":
            raise RunError(
                f"the evaluation loss is not finite after step {step}; evaluation rows at fault: "
                f"{listed(sources)}",
                hint="look at those rows"
                + (", lower the learning rate," if step else ", check the base model,")
                + " or set on_nonfinite: skip",
            )

    def _is_best(self, result: LossResult, answered: Answered) -> bool:
        """Best: better than before at all, and a number. Improvement for early stopping: better by
        the threshold.
        """
        plan, state = self._plan.evaluation, self.state
        value = metric_value(plan.metric, result, answered)
        if not (math.isfinite(value) and math.isfinite(result.loss)):
            state.evaluations_without_improvement += 1
            return False
        sign = 1.0 if plan.greater_is_better else -1.0
        gain = math.inf if state.best_metric is None else sign * (value - state.best_metric)
        state.evaluations_without_improvement = (
            0 if gain > plan.threshold else state.evaluations_without_improvement + 1
        )
        if not gain > 0:
            return False
        state.best_metric, state.best_step, state.best_eval_loss = value, state.step, result.loss
        return True

    def tell_non_finite(self, step: int, what: str, rows: tuple[str, ...]) -> None:
        """A number that was kept away from the weights."""
        action = self._plan.on_nonfinite
        self._emit(NonFiniteEvent(step=step, what=what, action=action, rows=rows))

    def require_a_step(self, step: int, skipped: int, remark: str, hint: str) -> None:
        """Raises RunError where all of the first steps were left out. remark: which, and why."""
        if skipped == step == min(STEPS_WITHOUT_ONE, self._plan.batch.total_steps):
            raise RunError(remark, hint=hint)

    # Checkpoints, and the way out.

    def save(self, reason: str = "") -> bool:
        """Whether this state is on disk now. reason: left out, what made it due."""
        self.tick()
        saved = self.keeper.save(self.state, reason or self._save_reason())
        if saved:
            self._evaluations.prune(self.state.best_step, self.state.evaluated_step)
        return saved

    def _save_reason(self) -> str:
        if self.state.best_step == self.state.step:
            return "best"
        return "last" if self.is_over else "schedule"

    def leave(self, signal_number: int, *, can_save: bool = True) -> Interrupted:
        """Save what there is, where that is possible; the error says how to go on."""
        step, total = self.state.step, self._plan.batch.total_steps
        place = self.job.directory.root
        saved = self.keeper.saved_step == step or (can_save and self.save("interrupted"))
        if not step:
            done = f"before the first step; nothing is lost in {place}"
        elif saved:
            done = f"after step {step} of {total}; everything up to there is in {place}"
        else:
            done = (
                f"after step {step} of {total}, which could not be saved; "
                f"everything up to step {self.keeper.saved_step} is in {place}"
            )
        return Interrupted(
            signal_number, done, hint="the same command with --resume goes on from there"
        )


def metric_value(metric: str, result: LossResult, answered: Answered) -> float:
    """The number that decides which step is best; NaN where that metric failed."""
    by_loss = {
        "eval_loss": result.loss,
        "perplexity": result.perplexity,
        "accuracy": result.accuracy,
    }
    if metric in by_loss:
        return by_loss[metric]
    found = answered.metrics.get(metric)
    return math.nan if found is None else found.value
