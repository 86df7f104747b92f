"""The LLaMA-Factory fine-tuner: its trainer takes the steps, in a process and an environment of its
own; what is due between two steps is decided here, by the rules of every run.
"""

from __future__ import annotations

import time
from pathlib import Path

from llamafarm.errors import Interrupted, RunError, count_of
from llamafarm.evaluation.answers import Answered
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.monitoring.events import (
    EvalProgressEvent,
    MessageEvent,
    OutOfMemoryEvent,
    WorkEvent,
)
from llamafarm.training.backends.llamafactory.environment import Environment, find_environment
from llamafarm.training.backends.llamafactory.pairs import paired_data
from llamafarm.training.backends.llamafactory.process import Said, TrainerProcess
from llamafarm.training.backends.llamafactory.snapshot import TrainerSnapshot, own_names
from llamafarm.training.backends.llamafactory.workplace import (
    JOB,
    RESUME,
    Workplace,
    fill_workplace,
    sides_of,
)
from llamafarm.training.backends.pytorch.model import TrainableModel, build_model
from llamafarm.training.backends.pytorch.samples import samples_at_the_end
from llamafarm.training.course import Course, StepNumbers
from llamafarm.training.identity import run_identity
from llamafarm.training.job import Outcome, TrainingJob
from llamafarm.training.keeper import CheckpointKeeper
from llamafarm.training.state import LoopState

_HEARTBEAT_SECONDS = 0.1
_ROWS_BETWEEN_WORDS = 1000


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
        self.saving_since: float | None = None

    def run(self) -> Outcome:
        """From the files to `final_model/`."""
        try:
            if not self.course.is_over or self.course.evaluation_due:
                self._train()
            self.course.keeper.write_final_model(self.state)
        finally:
            self.place.tidy()
        samples = samples_at_the_end(self.job, self._finished, self.state, self._told_rows)
        self.course.tick()
        return Outcome(self.state, self.peak_memory_bytes, samples)

    def _train(self) -> None:
        _write_workplace(self.place, self.job, self.state)
        text = f"starting LLaMA-Factory {self.environment.version}; its log: {self.place.log}"
        self.emit(MessageEvent(level="info", text=text))
        with TrainerProcess(
            self.environment,
            self.place.root,
            self.place.root / JOB,
            self.place.log,
            device=self.plan.device.device,
        ) as process:
            self._accompany(process)

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
            elif stop.received and self.saving_since is None and stop.too_long(0.0):
                raise self.course.leave(stop.received, can_save=False)
        unfinished = not self.course.is_over or self.course.evaluation_due
        if self.job.stop.received and unfinished:
            raise self.course.leave(self.job.stop.received, can_save=False)

    def _hear(self, process: TrainerProcess, said: Said) -> None:
        match said.sentence:
            case "loading":
                self.emit(MessageEvent(level="info", text="LLaMA-Factory loads the model"))
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
            case "smaller":
                self._take_less_memory(said)
            case "turn":
                self._take_turn(process)
            case "saved":
                self._save(Path(said.text("path")))
                process.answer()
            case "not_saved":
                self.saving_since = None
                self.course.keeper.tell_failure(self.state, said.text("why"))
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
        stopping = bool(self.job.stop.received)
        process.answer(evaluate=self.course.evaluation_due and not stopping, stop=stopping)

    def _take_step(self, process: TrainerProcess, said: Said) -> None:
        state = self.state
        tokens = said.whole("tokens")
        state.window_tokens += tokens - state.tokens
        state.step, state.epoch = said.whole("step"), said.number("epoch")
        state.tokens, state.trained_tokens = tokens, said.whole("trained_tokens")
        state.loss_sum += said.number("loss_sum")
        state.loss_tokens += said.whole("labels")
        state.window_seconds += said.number("seconds")
        stopping = bool(self.job.stop.received)
        evaluate = self.course.evaluation_due and not stopping
        turn = evaluate or self._save_due() or self.course.is_over or stopping
        process.answer(log=self.course.log_due, evaluate=evaluate, turn=turn)

    def _take_numbers(self, said: Said) -> None:
        logs = said.part("logs")
        rate, norm = logs.number("learning_rate"), logs.number("grad_norm")
        self.course.tell_step(StepNumbers(rate, norm, said.whole("memory")))

    def _take_evaluation(self, said: Said) -> None:
        if said.values.get("aborted"):
            return
        result = LossResult.of_rows(said.row_losses())
        self.course.take_result(result, Answered(), said.number("seconds"))

    def _take_less_memory(self, said: Said) -> None:
        rows = count_of(said.whole("rows"), "row")
        action = f"{rows} at a time from now on ({said.text('why')})"
        step = self.state.step
        self.emit(OutOfMemoryEvent(step=step, during="evaluation", tokens=0, action=action))

    def _take_turn(self, process: TrainerProcess) -> None:
        """Between two steps: save, and go on or end. What a resume began with is saved already."""
        save, stop = self._save_due(), self.course.is_over or bool(self.job.stop.received)
        resume = self.job.resume
        if save and resume is not None and self.state.step == resume.step:
            self._save(self.place.root / RESUME / resume.path.name)
            save = False
        self.saving_since = time.monotonic() if save else None
        process.answer(save=save, stop=stop)

    def _save_due(self) -> bool:
        """A signal makes it due, too."""
        state = self.state
        unsaved = state.step != self.course.keeper.saved_step and state.step > 0
        return self.course.save_due or (bool(self.job.stop.received) and unsaved)

    def _save(self, place: Path) -> None:
        self.snapshot.saved = place
        self.place.drop_saved(keep=place)
        if self.course.save("" if self.course.save_due else "interrupted"):
            self.place.drop_saved()
            self.snapshot.saved = None
        if self.saving_since is not None:  # the trainer's save, and ours of its files
            self.job.stop.save_seconds = time.monotonic() - self.saving_since
            self.saving_since = None

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

    def _finished(self) -> TrainableModel:
        """In this process: the other one is over."""
        trainable = build_model(self.plan, self.job.tokenizer)
        trainable.load_weights(self.job.directory.final_model)
        return trainable

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
        place,
        job.plan,
        job.tokenizer,
        sides,
        resume=resume,
        on_rows=lambda done: _wrote_row(job, done, sum(map(len, sides.values()))),
    )
    place.write_job(
        mode="train",
        threads=job.plan.device.threads,
        pairs=pairs,
        eval_batch_size=job.plan.batch.eval_batch_size,
        tokens=state.tokens,
        trained_tokens=state.trained_tokens,
    )


def _wrote_row(job: TrainingJob, done: int, rows: int) -> None:
    if done % _ROWS_BETWEEN_WORDS == 0 or done == rows:
        job.emit(WorkEvent(what="writing rows for LLaMA-Factory", done=done, total=rows))
    if job.stop.received:
        raise Interrupted(
            job.stop.received,
            f"before the first step; nothing is lost in {job.directory.root}",
            hint="the same command with --resume goes on from there",
        )
