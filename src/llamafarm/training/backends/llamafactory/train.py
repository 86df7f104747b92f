"""The LLaMA-Factory fine-tuner: its trainer takes the steps, in a process and an environment of its
own; what is due between two steps is decided here, by the rules of every run.
"""

from __future__ import annotations

import math
from pathlib import Path

from llamafarm.errors import Interrupted, RunError
from llamafarm.evaluation.answers import Answered
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.monitoring.comparison import Sample
from llamafarm.monitoring.events import EvalProgressEvent, MessageEvent
from llamafarm.training.backends.llamafactory.environment import Environment, find_environment
from llamafarm.training.backends.llamafactory.pairs import paired_data
from llamafarm.training.backends.llamafactory.process import Said, TrainerProcess
from llamafarm.training.backends.llamafactory.snapshot import TrainerSnapshot, own_names
from llamafarm.training.backends.llamafactory.workplace import (
    JOB,
    Workplace,
    fill_workplace,
    sides_of,
)
from llamafarm.training.course import Course, StepNumbers
from llamafarm.training.identity import run_identity
from llamafarm.training.job import Outcome, TrainingJob
from llamafarm.training.keeper import CheckpointKeeper
from llamafarm.training.state import LoopState

_HEARTBEAT_SECONDS = 0.1


def train(job: TrainingJob) -> Outcome:
    """Train a plan to its end. Raises Interrupted (after saving) or RunError."""
    environment = find_environment()
    return _Training(job, environment).run()


class _Training:
    def __init__(self, job: TrainingJob, environment: Environment) -> None:
        self.job, self.plan, self.emit = job, job.plan, job.emit
        self.environment = environment
        self.place = Workplace(job.directory.root / "llamafactory")
        self.snapshot = TrainerSnapshot(job.plan, job.tokenizer, run_identity(job.plan))
        keeper = CheckpointKeeper(job, self.snapshot, lambda: None)
        self.state = LoopState() if job.resume is None else keeper.restore(job.resume)
        self.course = Course(job, keeper, self.state)
        self.peak_memory_bytes = 0

    def run(self) -> Outcome:
        """From the files to `final_model/`."""
        if not self.course.is_over:
            _write_workplace(self.place, self.job, self.state)
            with TrainerProcess(
                self.environment,
                self.place.root,
                self.place.root / JOB,
                self.place.log,
                device=self.plan.device.device,
            ) as process:
                self._accompany(process)
        self.course.keeper.write_final_model(self.state)
        samples = self._samples()
        self.place.tidy()
        self.course.tick()
        return Outcome(self.state, self.peak_memory_bytes, samples)

    def _accompany(self, process: TrainerProcess) -> None:
        """Hear what it says until it is over."""
        asked_to_stop = False
        while True:
            said = process.listen(_HEARTBEAT_SECONDS)
            stop = self.job.stop
            if stop.received and not asked_to_stop:
                asked_to_stop = True
                process.stop_soon()
            if said is not None:
                if said.sentence == "over":
                    self.peak_memory_bytes = int(said.values.get("peak_memory", 0))
                    process.answer()
                    process.wait(10.0)
                    break
                self._hear(process, said)
            elif stop.received and stop.too_long(0.0):
                raise self.course.leave(stop.received, can_save=False)
        if self.job.stop.received and not self.course.is_over:
            raise self.course.leave(self.job.stop.received, can_save=False)

    def _hear(self, process: TrainerProcess, said: Said) -> None:
        match said.sentence:
            case "ready":
                self._begin(process, said)
            case "step":
                self._take_step(process, said)
            case "numbers":
                self._take_numbers(said)
            case "evaluating":
                self._told_rows(said.whole("rows_done"), said.whole("rows"))
            case "evaluated":
                self._take_evaluation(said)
                process.answer()
            case "turn":
                stop = self.course.is_over or bool(self.job.stop.received)
                process.answer(save=self._save_due(), stop=stop)
            case "saved":
                self._save(Path(said.text("path")))
                process.answer()
            case "nonfinite":
                self._refuse(said.whole("step"), said.text("what"))
                process.answer()
            case _:
                raise said.unknown()

    def _begin(self, process: TrainerProcess, said: Said) -> None:
        if said.whole("step") != self.state.step:
            raise said.unknown()
        self.course.announce(
            trainable_parameters=said.whole("trainable_parameters"),
            device=said.text("device"),
            packed=False,
        )
        process.answer(evaluate=self.course.evaluation_due and not self.job.stop.received)

    def _take_step(self, process: TrainerProcess, said: Said) -> None:
        state = self.state
        tokens = said.whole("tokens")
        state.window_tokens += tokens - state.tokens
        state.step, state.epoch = said.whole("step"), said.number("epoch")
        state.tokens, state.trained_tokens = tokens, said.whole("trained_tokens")
        stopping = bool(self.job.stop.received)
        evaluate = self.course.evaluation_due and not stopping
        turn = evaluate or self._save_due() or self.course.is_over or stopping
        process.answer(log=self.course.log_due, evaluate=evaluate, turn=turn)

    def _take_numbers(self, said: Said) -> None:
        state, logs = self.state, said.part("logs")
        state.loss_sum, state.loss_tokens = said.number("loss_sum"), said.whole("labels")
        state.window_seconds = said.number("seconds")
        rate, norm = logs.number("learning_rate"), logs.number("grad_norm")
        self.course.tell_step(StepNumbers(rate, norm, said.whole("memory")))

    def _take_evaluation(self, said: Said) -> None:
        if said.values.get("aborted"):
            return
        losses = [math.nan if loss is None else loss for loss in said.list("losses")]
        by_row = RowLosses(
            tuple(map(float, losses)), tuple(said.list("tokens")), tuple(said.list("correct"))
        )
        result = LossResult.of_rows(by_row)
        self.course.take_result(result, Answered(), said.number("seconds"))

    def _save_due(self) -> bool:
        """A signal makes it due, too."""
        state = self.state
        unsaved = state.step != self.course.keeper.saved_step and state.step > 0
        return self.course.save_due or (bool(self.job.stop.received) and unsaved)

    def _save(self, place: Path) -> None:
        self.snapshot.saved = place
        self.course.save("" if self.course.save_due else "interrupted")

    def _refuse(self, step: int, what: str) -> None:
        """The step is left out where that was asked for."""
        self.course.tell_non_finite(step, what, ())
        self.state.nonfinite_steps += 1
        if self.plan.on_nonfinite == "stop":
            raise RunError(
                f"the {what} of step {step} is not finite; the weights were left as they were "
                f"after step {self.state.step}",
                hint="lower the learning rate, or set on_nonfinite: skip; `type: pytorch` names "
                "the rows at fault",
            )
        skipped = self.state.nonfinite_steps
        self.course.require_a_step(
            step,
            skipped,
            f"none of the first {skipped} steps had a finite loss and gradient: nothing is learnt",
            "look at the base model, the precision and the learning rate",
        )

    def _samples(self) -> tuple[Sample, ...]:
        """A few rows answered by the finished model, in this process: the other one is over."""
        from llamafarm.training.backends.pytorch.model import build_model
        from llamafarm.training.backends.pytorch.samples import sample_answers

        try:
            trainable = build_model(self.plan, self.job.tokenizer)
            trainable.load_weights(self.job.directory.final_model)
            return sample_answers(self.job, trainable, self.state, self._told_rows)
        except Interrupted:
            raise
        except Exception as error:  # the run is over and saved: samples are not worth losing it
            text = f"there are no sample answers: {type(error).__name__}: {str(error)[:160]}"
            self.emit(MessageEvent(level="warning", text=text))
            return ()

    def _told_rows(self, rows_done: int, rows: int) -> None:
        self.emit(EvalProgressEvent(step=self.state.step, rows_done=rows_done, rows=rows))


def _write_workplace(place: Workplace, job: TrainingJob, state: LoopState) -> None:
    """Everything the process is started on. Raises OSError, and Interrupted where a signal came."""
    place.clear()
    resume = ""
    if job.resume is not None:
        resume = place.put_back(job.resume.path, own_names(job.resume.path))
    has_eval = job.plan.evaluation.enabled and job.data.eval is not None
    pairs = job.plan.data.answers == "paired"
    sides = paired_data(job) if pairs else sides_of(job.data, has_eval=has_eval)
    fill_workplace(
        place, job.plan, job.tokenizer, sides, resume=resume, on_rows=lambda _: _interruptible(job)
    )
    place.write_job(
        mode="train",
        threads=job.plan.device.threads,
        pairs=pairs,
        eval_batch_size=job.plan.batch.eval_batch_size,
        tokens=state.tokens,
        trained_tokens=state.trained_tokens,
    )


def _interruptible(job: TrainingJob) -> None:
    if job.stop.received:
        raise Interrupted(
            job.stop.received,
            f"before the first step; nothing is lost in {job.directory.root}",
            hint="the same command with --resume goes on from there",
        )
