"""The PyTorch fine-tuner: one loop, from the first evaluation of the base model to `final_model/`.

Between two steps the loop is in a state that a checkpoint holds completely. Each turn first does
what is due in that state (evaluate, save, stop), then takes the next step; so a resumed run and an
uninterrupted one do the same things.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence

import torch

from llamafarm.errors import RunError, count_of, listed
from llamafarm.evaluation.loss import evaluate_loss
from llamafarm.hardware.ceiling import MemoryCeiling
from llamafarm.hardware.out_of_memory import is_out_of_memory, release_memory
from llamafarm.monitoring.events import (
    EvalProgressEvent,
    FindingEvent,
    MessageEvent,
    OutOfMemoryEvent,
)
from llamafarm.training.backends.pytorch.answer_metrics import AnswerMetrics
from llamafarm.training.backends.pytorch.batches import BatchFeed, StepBatch
from llamafarm.training.backends.pytorch.device import (
    device_utilisation,
    held_memory_bytes,
    new_accelerator,
    peak_memory_bytes,
)
from llamafarm.training.backends.pytorch.gradients import (
    GradientMaker,
    Gradients,
    StepGivenUp,
)
from llamafarm.training.backends.pytorch.model import EmbeddingNoise, build_model
from llamafarm.training.backends.pytorch.optimizer import make_optimizer, make_scheduler
from llamafarm.training.backends.pytorch.samples import samples_at_the_end
from llamafarm.training.backends.pytorch.shortage import MemoryRelief
from llamafarm.training.backends.pytorch.snapshot import Snapshot
from llamafarm.training.course import Course, StepNumbers
from llamafarm.training.identity import run_identity
from llamafarm.training.job import Outcome, TrainingJob
from llamafarm.training.keeper import CheckpointKeeper
from llamafarm.training.spikes import remember, stands_out, usual
from llamafarm.training.state import LoopState

_SMALLEST_NORM = 1e-30
# In nats a token, and in logarithms of the norm: what differs by less is no spike.
_LEAST_LOSS_DEVIATION = 0.05
_LEAST_NORM_DEVIATION = 0.15


def train(job: TrainingJob) -> Outcome:
    """Train a plan to its end. Raises Interrupted (after saving) or RunError."""
    with MemoryCeiling() as ceiling:
        try:
            return _Loop(job, ceiling).run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"out of memory on {job.plan.device.device} outside of a forward or backward pass "
                f"({str(error).strip()[:160]})",
                hint="train an adapter instead of all weights, take an 8-bit optimizer or a "
                "smaller base model",
            ) from error


class _StopAsked(Exception):  # noqa: N818
    """Raised inside an evaluation when a signal came; the evaluation is done again on resume."""


class _Loop:
    def __init__(self, job: TrainingJob, ceiling: MemoryCeiling) -> None:
        plan = self.plan = job.plan
        self.job, self.emit, self.ceiling = job, job.emit, ceiling
        torch.set_num_threads(plan.device.threads)
        torch.backends.cuda.matmul.allow_tf32 = plan.device.tf32
        accelerator = new_accelerator(plan.device)
        self.device, self.scaler = accelerator.device, accelerator.scaler
        torch.manual_seed(plan.seed)
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("default", UserWarning)
            warnings.simplefilter("ignore", FutureWarning)
            self.trainable = build_model(plan, job.tokenizer)
        for text in dict.fromkeys(str(remark.message) for remark in remarks):
            self.emit(MessageEvent(level="warning", text=text))
        self.packed = self.trainable.packability.packed
        alpha = plan.optimizer.neftune_noise_alpha
        noise = EmbeddingNoise(self.trainable.model, alpha) if alpha else None
        optimizer = make_optimizer(plan.optimizer, self.trainable.model)
        self.scheduler = make_scheduler(plan.optimizer, optimizer, plan.batch.total_steps)
        self.model, self.optimizer = accelerator.prepare(self.trainable.model, optimizer)
        if plan.torch_compile:
            self.model = torch.compile(self.model, dynamic=True)
        self.parameters = [p for p in self.trainable.model.parameters() if p.requires_grad]
        self.gradients = GradientMaker(
            self.model,
            self.optimizer,
            accelerator,
            parameters=self.parameters,
            seed=plan.seed,
            packed=self.packed,
            label_smoothing=plan.optimizer.label_smoothing,
            max_grad_norm=plan.optimizer.max_grad_norm,
            noise=noise,
        )
        draws_numbers = noise is not None or self.trainable.has_dropout
        self.relief = MemoryRelief(job, self.trainable, draws_numbers=draws_numbers)
        self.feed = BatchFeed(job.data.train, plan.batch, plan.seed, packed=self.packed)
        snapshot = Snapshot(
            self.trainable, optimizer, self.scheduler, self.scaler, run_identity(plan)
        )
        keeper = CheckpointKeeper(job, snapshot, self.gradients.drop)
        self.answers = AnswerMetrics(job, self.trainable)
        self.state = LoopState()
        if job.resume is not None:
            self.state = keeper.restore(job.resume)
            self.relief.again(self.state)
        self.course = Course(job, keeper, self.state)

    def run(self) -> Outcome:
        """The loop."""
        state, course = self.state, self.course
        layout = "several conversations a row" if self.packed else "one conversation a row"
        reason = self.trainable.packability.reason
        self.emit(MessageEvent(level="info", text=f"layout: {layout} ({reason})"))
        course.announce(
            trainable_parameters=sum(p.numel() for p in self.parameters),
            device=str(self.device),
            packed=self.packed,
        )
        self.model.train()
        with self.feed:
            while True:
                if course.evaluation_due and not self.job.stop.received:
                    self._evaluate()
                if course.save_due:
                    course.save()
                if self.job.stop.received:
                    raise course.leave(self.job.stop.received)
                if course.is_over:
                    break
                self.ceiling.refresh()
                asked = time.monotonic()
                batch = self.feed.batch(state.step + 1)
                state.window_data_seconds += time.monotonic() - asked
                self._step(batch)
        course.keeper.write_final_model(state)
        course.tick()
        # The model in memory is the kept one afterwards.
        samples = samples_at_the_end(self.job, lambda: self.trainable, state, self._told_rows)
        course.tick()
        return Outcome(state, peak_memory_bytes(self.device), samples)

    def _told_rows(self, rows_done: int, rows: int) -> None:
        self.emit(EvalProgressEvent(step=self.state.step, rows_done=rows_done, rows=rows))

    # One optimizer step.

    def _step(self, batch: StepBatch) -> None:
        state = self.state
        started = time.monotonic()
        learning_rate = float(self.scheduler.get_last_lr()[0])
        try:
            made = self._make_gradients(batch)
        except StepGivenUp:
            return
        if made.finite or (self.scaler is not None and math.isfinite(made.loss_sum)):
            self._update(batch)
        else:
            self._refuse(batch, made)
        with warnings.catch_warnings():
            # torch remarks that the schedule moves on where the first step was left out.
            warnings.simplefilter("ignore", UserWarning)
            self.scheduler.step()
        state.step, state.epoch = batch.step, batch.epoch
        state.tokens += batch.num_tokens
        state.trained_tokens += batch.num_labels
        if made.finite:
            state.loss_sum += made.loss_sum
            state.loss_tokens += batch.num_labels
            self._compare_with_history(made)
        seconds = time.monotonic() - started
        state.window_tokens += batch.num_tokens
        state.window_seconds += seconds
        if self.course.log_due:
            memory, used = held_memory_bytes(self.device), device_utilisation(self.device)
            self.course.tell_step(StepNumbers(learning_rate, made.norm, memory, used))

    def _update(self, batch: StepBatch) -> None:
        """Move the weights. A gradient scaler leaves out a step whose gradients overflowed."""
        try:
            self.optimizer.step()
            self._count_overflow(batch)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise RunError(
                f"the update of step {batch.step} overflows: {error}",
                hint="lower the learning rate",
            ) from error

    def _count_overflow(self, batch: StepBatch) -> None:
        """Some first steps overflow while a gradient scaler finds its scale; not all of them."""
        if self.scaler is None or not self.optimizer.step_was_skipped:
            return
        self.state.overflowed_steps += 1
        skipped = self.state.overflowed_steps
        self.course.require_a_step(
            batch.step,
            skipped,
            f"the gradients of all {skipped} steps so far overflow in float16: nothing is learnt",
            "train without mixed precision (mixed_precision: no), or with bf16 where the device "
            "has it",
        )

    def _make_gradients(self, batch: StepBatch) -> Gradients:
        """The gradients of the step; where memory is short, its rows again in smaller parts."""
        while True:
            parts = self.feed.within(batch, self.state.token_budget)
            made = self.gradients.make(parts, self.job.stop.too_long)
            if isinstance(made, Gradients):
                return made
            self.gradients.drop()
            release_memory()
            self.emit(self.relief.reduce(parts, made, self.state))

    def _refuse(self, batch: StepBatch, made: Gradients) -> None:
        """A non-finite loss or gradient never reaches the weights."""
        what = "gradient" if math.isfinite(made.loss_sum) else "loss"
        at_fault = self.gradients.rows_at_fault(batch, self.feed.alone)
        rows = self._sources(at_fault or batch.indices)
        self.course.tell_non_finite(batch.step, what, rows)
        self.state.nonfinite_steps += 1
        if self.plan.on_nonfinite == "stop":
            which = "At fault" if at_fault else "No row is so by itself; rows of that step"
            raise RunError(
                f"the {what} of step {batch.step} is not finite; the weights were left as they "
                f"were after step {self.state.step}. {which}: {listed(rows)}",
                hint="lower the learning rate, look at those rows, or set on_nonfinite: skip",
            )
        self.course.keeper.require_finite(self.state)
        skipped = self.state.nonfinite_steps
        self.course.require_a_step(
            batch.step,
            skipped,
            f"none of the first {skipped} steps had a finite loss and gradient: nothing is "
            f"learnt. Rows of the last one: {listed(rows)}",
            "look at the base model, the precision and the learning rate",
        )

    def _compare_with_history(self, made: Gradients) -> None:
        """Tell of a step that stands out of this run's own history."""
        state, batch = self.state, made.batch
        loss, norm = made.loss_sum / batch.num_labels, math.log(max(made.norm, _SMALLEST_NORM))
        found: list[str] = []
        numbers: dict[str, float] = {}
        if stands_out(state.recent_losses, loss, least=_LEAST_LOSS_DEVIATION):
            typical = usual(state.recent_losses)
            found.append(f"loss {loss:.3f}, usually {typical:.3f}")
            numbers |= {"loss": loss, "usual_loss": typical}
        if stands_out(state.recent_norms, norm, least=_LEAST_NORM_DEVIATION):
            typical = math.exp(usual(state.recent_norms))
            found.append(f"gradient norm {made.norm:.3g}, usually {typical:.3g}")
            numbers |= {"grad_norm": made.norm, "usual_grad_norm": typical}
        if found:
            self.emit(
                FindingEvent(
                    step=batch.step,
                    rule="spike",
                    text=f"step {batch.step} stands out: {'; '.join(found)}",
                    rows=self._sources(made.rows_by_loss()),
                    numbers=numbers,
                    advice="look at the first of these rows; where it is sound, lower the "
                    "learning rate",
                )
            )
        remember(state.recent_losses, loss)
        remember(state.recent_norms, norm)

    def _sources(self, indices: Sequence[int]) -> tuple[str, ...]:
        return tuple(str(self.job.data.train.source(index)) for index in indices)

    # Evaluation.

    def _evaluate(self) -> None:
        assert self.job.data.eval is not None  # noqa: S101
        rows = self.job.data.eval
        started = time.monotonic()
        self.ceiling.refresh()
        try:
            result = evaluate_loss(
                self.model,
                rows,
                batch_size=self.state.eval_rows or self.plan.batch.eval_batch_size,
                packed=self.packed,
                device=self.device,
                on_batch=self._evaluation_progress,
                on_short_memory=self._evaluate_fewer_rows,
            )
            answered = self.answers.measure(
                self.state.step, lambda done: self._evaluation_progress(len(rows) + done)
            )
        except _StopAsked:
            return
        self.course.take_result(result, answered, time.monotonic() - started)

    def _evaluation_progress(self, rows_done: int) -> None:
        if self.job.stop.received:
            raise _StopAsked
        total = len(self.job.data.eval or ()) + self.answers.rows
        self.emit(EvalProgressEvent(step=self.state.step, rows_done=rows_done, rows=total))

    def _evaluate_fewer_rows(self, rows: int, said: str) -> None:
        self.state.eval_rows = rows
        self.gradients.drop()
        action = f"{count_of(rows, 'row')} at a time from now on ({said[:160]})"
        self.emit(
            OutOfMemoryEvent(step=self.state.step, during="evaluation", tokens=0, action=action)
        )
