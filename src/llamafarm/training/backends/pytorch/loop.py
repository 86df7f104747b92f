"""The PyTorch fine-tuner: one loop, from the first evaluation of the base model to `final_model/`.

Between two steps the loop is in a state that a checkpoint holds completely. Each turn first does
what is due in that
state (evaluate, save, stop), then takes the next step; so a resumed run and an uninterrupted one do
the same things.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llamafarm.errors import Interrupted, RunError
from llamafarm.evaluation.loss import LossResult, evaluate_loss
from llamafarm.files import staged_directory, write_bytes
from llamafarm.models.packed import label_logits, token_losses
from llamafarm.monitoring.events import (
    CheckpointEvent,
    EarlyStopEvent,
    EvalEvent,
    EvalProgressEvent,
    MessageEvent,
    NonFiniteEvent,
    StartEvent,
    StepEvent,
)
from llamafarm.training.backends.pytorch.batches import BatchFeed, StepBatch
from llamafarm.training.backends.pytorch.device import (
    is_out_of_memory,
    new_accelerator,
    peak_memory_bytes,
)
from llamafarm.training.backends.pytorch.model import EmbeddingNoise, build_model
from llamafarm.training.backends.pytorch.optimizer import make_optimizer, make_scheduler
from llamafarm.training.backends.pytorch.tensors import (
    decode,
    encode,
    join_optimizer_state,
    model_files,
    named_parameters_of,
    split_optimizer_state,
)
from llamafarm.training.checkpoint import (
    checkpoint_files,
    list_checkpoints,
    rotate,
    write_checkpoint,
)
from llamafarm.training.identity import run_identity
from llamafarm.training.job import Outcome, TrainingJob
from llamafarm.training.model_card import model_card
from llamafarm.training.order import step_seed
from llamafarm.training.state import LoopState

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "trainer_state.json"


def train(job: TrainingJob) -> Outcome:
    """Train a plan to its end. Raises Interrupted (after saving) or RunError."""
    try:
        return _Loop(job).run()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        batch = job.plan.batch
        raise RunError(
            f"out of memory on {job.plan.device.device} with {batch.micro_batch_size} "
            f"conversations a micro-step ({str(error).strip()[:160]})",
            hint="set a smaller training_args.per_device_train_batch_size and raise "
            "gradient_accumulation_steps by the same factor, or gradient_checkpointing: true",
        ) from error


class _StopAsked(Exception):  # noqa: N818
    """Raised inside an evaluation when a signal came; the evaluation is done again on resume."""


class _Loop:
    def __init__(self, job: TrainingJob) -> None:
        plan = self.plan = job.plan
        self.job, self.emit = job, job.emit
        torch.set_num_threads(plan.device.threads)
        torch.backends.cuda.matmul.allow_tf32 = plan.device.tf32
        self.accelerator = new_accelerator(plan.device)
        self.device = self.accelerator.device
        torch.manual_seed(plan.seed)
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("default", UserWarning)
            warnings.simplefilter("ignore", FutureWarning)
            self.trainable = build_model(plan, job.tokenizer)
        for text in dict.fromkeys(str(remark.message) for remark in remarks):
            self.emit(MessageEvent(level="warning", text=text))
        self.packed = self.trainable.packability.packed
        noise = plan.optimizer.neftune_noise_alpha
        self.noise = EmbeddingNoise(self.trainable.model, noise) if noise else None
        optimizer = make_optimizer(plan.optimizer, self.trainable.model)
        self.scheduler = make_scheduler(plan.optimizer, optimizer, plan.batch.total_steps)
        self.parameter_names = named_parameters_of(optimizer, self.trainable.model)
        self.plain_optimizer = optimizer
        self.model, self.optimizer = self.accelerator.prepare(self.trainable.model, optimizer)
        if plan.torch_compile:
            self.model = torch.compile(self.model, dynamic=True)
        self.parameters = [p for p in self.trainable.model.parameters() if p.requires_grad]
        self.feed = BatchFeed(job.data.train, plan.batch, plan.seed, packed=self.packed)
        self.state = LoopState()
        self.saved_step = 0
        self.clock = time.monotonic()
        if job.resume is not None:
            self._restore(job.resume.path)

    def run(self) -> Outcome:
        """The loop."""
        plan, state = self.plan, self.state
        self._announce()
        self.model.train()
        with self.feed:
            while True:
                if self._evaluation_due() and not self.job.stop.received:
                    self._evaluate()
                if self._checkpoint_due():
                    self._save(self._save_reason())
                if self.job.stop.received:
                    self._leave(self.job.stop.received)
                if state.step >= plan.batch.total_steps or state.stopped_early:
                    break
                self._step(self.feed.batch(state.step + 1))
        self._write_final_model()
        self._tick()
        return Outcome(state, peak_memory_bytes(self.device))

    # One optimizer step.

    def _step(self, batch: StepBatch) -> None:
        plan, state = self.plan, self.state
        started = time.monotonic()
        learning_rate = float(self.scheduler.get_last_lr()[0])
        torch.manual_seed(step_seed(plan.seed, batch.step))
        self.optimizer.zero_grad()
        loss_sum = torch.zeros((), dtype=torch.float64)
        for row in batch.rows:
            row = row.to(self.device)
            if self.noise is not None:
                self.noise.set_lengths(_token_lengths(row.documents, row.prefix_length))
            logits = label_logits(self.model, row, packed=self.packed)
            losses = token_losses(
                logits, row.labels, label_smoothing=plan.optimizer.label_smoothing
            )
            self.accelerator.backward(losses.sum() / batch.num_labels)
            loss_sum += losses.detach().double().sum().cpu()
        grad_norm = self._clip()
        finite = math.isfinite(float(loss_sum)) and math.isfinite(grad_norm)
        if finite or (self.accelerator.scaler is not None and math.isfinite(float(loss_sum))):
            self.optimizer.step()  # a gradient scaler leaves out a step whose gradients overflowed
        else:
            self._refuse(batch, float(loss_sum), grad_norm)
        self.scheduler.step()
        state.step, state.epoch = batch.step, batch.epoch
        state.tokens += batch.num_tokens
        state.trained_tokens += batch.num_labels
        if finite:
            state.loss_sum += float(loss_sum)
            state.loss_tokens += batch.num_labels
        seconds = time.monotonic() - started
        state.window_tokens += batch.num_tokens
        state.window_seconds += seconds
        state.train_seconds += seconds
        self._log(learning_rate, grad_norm)

    def _clip(self) -> float:
        """Global gradient norm before clipping; max_grad_norm 0 measures without clipping."""
        limit = self.plan.optimizer.max_grad_norm or math.inf
        return float(self.accelerator.clip_grad_norm_(self.parameters, limit))

    def _refuse(self, batch: StepBatch, loss_sum: float, grad_norm: float) -> None:
        """A non-finite loss or gradient never reaches the weights."""
        what = "loss" if not math.isfinite(loss_sum) else "gradient"
        rows = tuple(str(self.job.data.train.source(i)) for i in batch.indices)
        action = self.plan.on_nonfinite
        self.emit(NonFiniteEvent(step=batch.step, what=what, action=action, rows=rows))
        self.optimizer.zero_grad()
        self.state.nonfinite_steps += 1
        if action == "stop":
            raise RunError(
                f"the {what} of step {batch.step} is not finite; the weights were left as they "
                f"were after step {self.state.step}. Rows of that step: {', '.join(rows[:8])}",
                hint="lower the learning rate, look at those rows, or set on_nonfinite: skip",
            )

    def _log(self, learning_rate: float, grad_norm: float) -> None:
        state, logging = self.state, self.plan.logging
        last = state.step == self.plan.batch.total_steps
        if not (logging.every.due(state.step) or last or (state.step == 1 and logging.first_step)):
            return
        if state.loss_tokens:
            state.train_loss = state.loss_sum / state.loss_tokens
        self._tick()
        self.emit(
            StepEvent(
                step=state.step,
                epoch=state.epoch,
                loss=state.train_loss if state.train_loss is not None else math.nan,
                learning_rate=learning_rate,
                grad_norm=grad_norm,
                tokens=state.tokens,
                trained_tokens=state.trained_tokens,
                tokens_per_second=state.window_tokens / max(state.window_seconds, 1e-9),
                seconds=state.seconds,
            )
        )
        state.loss_sum, state.loss_tokens, state.window_tokens, state.window_seconds = (
            0.0,
            0,
            0,
            0.0,
        )

    # Evaluation.

    def _evaluation_due(self) -> bool:
        plan, state = self.plan.evaluation, self.state
        if not plan.enabled or self.job.data.eval is None or state.evaluated_step >= state.step:
            return False
        if state.step == 0:
            return plan.on_start
        return plan.every.due(state.step) or state.step == self.plan.batch.total_steps

    def _evaluate(self) -> None:
        assert self.job.data.eval is not None  # noqa: S101
        rows = self.job.data.eval
        started = time.monotonic()
        try:
            result = evaluate_loss(
                self.model,
                rows,
                batch_size=self.plan.batch.eval_batch_size,
                packed=self.packed,
                device=self.device,
                on_batch=self._evaluation_progress,
            )
        except _StopAsked:
            return
        self._take_result(result, time.monotonic() - started)

    def _evaluation_progress(self, rows_done: int) -> None:
        if self.job.stop.received:
            raise _StopAsked
        total = len(self.job.data.eval or ())
        self.emit(EvalProgressEvent(step=self.state.step, rows_done=rows_done, rows=total))

    def _take_result(self, result: LossResult, seconds: float) -> None:
        state = self.state
        state.evaluated_step = state.step
        state.eval_loss = result.loss
        if state.step == 0:
            state.base_eval_loss = result.loss
        best = self._is_best(result) if state.step else False
        self.emit(
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
                metrics={},
            )
        )
        patience = self.plan.evaluation.patience
        if patience and state.evaluations_without_improvement >= patience and not self._at_end():
            state.stopped_early = True
            self.emit(
                EarlyStopEvent(
                    step=state.step,
                    best_step=state.best_step,
                    evaluations_without_improvement=state.evaluations_without_improvement,
                )
            )

    def _is_best(self, result: LossResult) -> bool:
        """Best: better than before at all. Improvement for early stopping: better by the
        threshold.
        """
        plan, state = self.plan.evaluation, self.state
        value = metric_value(plan.metric, result)
        sign = 1.0 if plan.greater_is_better else -1.0
        gain = math.inf if state.best_metric is None else sign * (value - state.best_metric)
        state.evaluations_without_improvement = (
            0 if gain > plan.threshold else state.evaluations_without_improvement + 1
        )
        if not gain > 0:
            return False
        state.best_metric, state.best_step, state.best_eval_loss = value, state.step, result.loss
        return True

    def _at_end(self) -> bool:
        return self.state.step >= self.plan.batch.total_steps

    # Checkpoints.

    def _checkpoint_due(self) -> bool:
        step = self.state.step
        if step == 0 or step == self.saved_step:
            return False
        scheduled = self.plan.saving.every.due(step)
        return (
            scheduled or self._at_end() or self.state.stopped_early or self.state.best_step == step
        )

    def _save_reason(self) -> str:
        if self.state.best_step == self.state.step:
            return "best"
        return "last" if self._at_end() or self.state.stopped_early else "schedule"

    def _save(self, reason: str) -> None:
        self._tick()
        saving, state = self.plan.saving, self.state
        written = write_checkpoint(
            self.job.directory.checkpoints, state.step, self._checkpoint_files()
        )
        self.saved_step = state.step
        limit = saving.total_limit if saving.every.steps else 0
        rotate(self.job.directory.checkpoints, limit=limit, protected={state.best_step, state.step})
        self.emit(
            CheckpointEvent(
                step=state.step,
                path=str(written.checkpoint.path),
                reason=reason,
                bytes=written.num_bytes,
                seconds=written.seconds,
            )
        )

    def _checkpoint_files(self) -> Iterator[tuple[str, bytes]]:
        yield from self.trainable.static_files.items()
        yield from model_files(self.trainable.weights(), self.trainable.stem)
        tensors, values = split_optimizer_state(self.plain_optimizer, self.parameter_names)
        yield OPTIMIZER_FILE, tensors
        scaler = self.accelerator.scaler
        state = {
            "global_step": self.state.step,
            "best_metric": self.state.best_metric,
            "best_global_step": self.state.best_step,
            "loop": {k: encode(v) for k, v in self.state.to_json().items()},
            "optimizer": values,
            "scheduler": encode(self.scheduler.state_dict()),
            "scaler": encode(scaler.state_dict()) if scaler is not None else None,
            "identity": run_identity(self.plan),
        }
        yield STATE_FILE, (json.dumps(state, indent=1, allow_nan=False) + "\n").encode()

    def _restore(self, path: Path) -> None:
        saved: dict[str, Any] = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        self.trainable.load_weights(path)
        join_optimizer_state(
            self.plain_optimizer, (path / OPTIMIZER_FILE).read_bytes(), saved["optimizer"]
        )
        self.scheduler.load_state_dict(decode(saved["scheduler"]))
        if saved["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(decode(saved["scaler"]))
        self.state = LoopState.from_json({k: decode(v) for k, v in saved["loop"].items()})
        self.saved_step = self.state.step

    def _leave(self, signal_number: int) -> None:
        """Save what there is and say how to go on."""
        step = self.state.step
        if step and self.saved_step != step:
            self._save("interrupted")
        done = (
            f"after step {step} of {self.plan.batch.total_steps}"
            if step
            else "before the first step"
        )
        raise Interrupted(
            signal_number,
            f"{done}; everything up to there is in {self.job.directory.root}",
            hint="the same command with --resume goes on from there",
        )

    # The end.

    def _write_final_model(self) -> None:
        """The best step's files (the last one's where so asked), without what only a resume
        needs.
        """
        state, evaluation = self.state, self.plan.evaluation
        step = state.best_step if evaluation.load_best and state.best_step else state.step
        source = {c.step: c.path for c in list_checkpoints(self.job.directory.checkpoints)}[step]
        with staged_directory(self.job.directory.final_model) as stage:
            for name, data in checkpoint_files(source, leave_out=(OPTIMIZER_FILE, STATE_FILE)):
                write_bytes(stage / name, data)
            write_bytes(stage / "README.md", model_card(self.plan, state).encode())

    def _announce(self) -> None:
        plan, packability = self.plan, self.trainable.packability
        layout = "several conversations a row" if self.packed else "one conversation a row"
        self.emit(MessageEvent(level="info", text=f"layout: {layout} ({packability.reason})"))
        self.emit(
            StartEvent(
                step=self.state.step,
                total_steps=plan.batch.total_steps,
                train_rows=len(self.job.data.train),
                eval_rows=len(self.job.data.eval or ()),
                trainable_parameters=sum(p.numel() for p in self.parameters),
                device=str(self.device),
                packed=self.packed,
                planned_evaluations=self._planned_evaluations(),
            )
        )

    def _planned_evaluations(self) -> int:
        """How many evaluations are left for this process."""
        plan, total = self.plan.evaluation, self.plan.batch.total_steps
        if not plan.enabled or self.job.data.eval is None:
            return 0
        due = {s for s in range(self.state.step + 1, total + 1) if plan.every.due(s)} | {total}
        first = self.state.step == 0 and plan.on_start
        return len([s for s in due if s > self.state.evaluated_step]) + int(first)

    def _tick(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now


def metric_value(metric: str, result: LossResult) -> float:
    """The number that decides which step is best."""
    return {"eval_loss": result.loss, "perplexity": result.perplexity, "accuracy": result.accuracy}[
        metric
    ]


def _token_lengths(documents: tuple[tuple[int, int], ...], prefix: int) -> Tensor:
    """For every position of a packed row, the length of the conversation it belongs to: [T]."""
    lengths = [torch.full((end - start,), float(end - start + prefix)) for start, end in documents]
    return torch.cat([lengths[0][:1].expand(prefix), *lengths])
