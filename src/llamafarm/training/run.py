"""One run, from a plan to a finished run directory, whatever happens on the way."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llamafarm.data.tokenized import PreparedData
from llamafarm.errors import (
    Interrupted,
    LlamafarmError,
    OutputError,
    Problem,
    RunError,
)
from llamafarm.files import write_json_atomic, write_text_atomic
from llamafarm.hardware.facts import Hardware
from llamafarm.monitoring.diagnosis import Diagnosis
from llamafarm.monitoring.events import (
    CheckpointEvent,
    EndEvent,
    Event,
    MessageEvent,
    ResumeEvent,
    Sink,
)
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.metrics_file import cut_after, read_events
from llamafarm.monitoring.summary import RunSummary, summarise
from llamafarm.planning.plan import TrainingPlan
from llamafarm.redact import redact, redact_values
from llamafarm.training.checkpoint import (
    STATE_FILE,
    Checkpoint,
    checkpoint_of,
    fault_of_step,
    free_bytes,
    list_checkpoints,
    newest_valid,
    verify_checkpoint,
)
from llamafarm.training.comparison import compare_run, write_comparison
from llamafarm.training.evaluations import forget_evaluations_after
from llamafarm.training.identity import identity_differences, run_identity
from llamafarm.training.job import Backend, Outcome, TrainingJob
from llamafarm.training.run_directory import RunDirectory, open_run_directory
from llamafarm.training.signals import StopRequest
from llamafarm.training.sinks import all_sinks, require_sinks, run_facts
from llamafarm.training.state import LoopState

_FULL = (errno.ENOSPC, errno.EDQUOT)
# What is read of trainer_state.json before the backend takes it.
_STATE = {"identity": dict, "loop": dict, "best_global_step": int, "optimizer": dict}
_VERSIONS = (
    "llamafarm",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "tokenizers",
)


@dataclass(frozen=True)
class RunOptions:
    """How a run starts. command: what was typed, for run.json."""

    resume: bool = False
    resume_anyway: bool = False
    overwrite: bool = False
    command: str = ""


@dataclass(frozen=True)
class RunInputs:
    """What a run is made of. strategy_yaml: the resolved strategy as text."""

    plan: TrainingPlan
    data: PreparedData
    tokenizer: Any
    hardware: Hardware
    strategy_yaml: str


def run(inputs: RunInputs, options: RunOptions, sinks: Sequence[Sink] = ()) -> RunSummary:
    """Train to the end. Raises Interrupted, RunError or a UserError; run.json then says how it
    ended.
    """
    backend = _backend(inputs.plan)
    require_sinks(inputs.plan)
    try:
        return _run(backend, inputs, options, sinks)
    except OSError as error:
        raise _cannot_write(inputs.plan, error) from error


def _cannot_write(plan: TrainingPlan, error: OSError) -> RunError:
    """Where the disk is full, with the bytes that all of the run needs."""
    room, remedy = "", "see what the disk has"
    if error.errno in _FULL:
        remedy = "free some disk space"
        room = f" (about {plan.forecast.disk_bytes:,} bytes needed"
        free = free_bytes(plan.output_dir)
        room += ")" if free is None else f", {free:,} free)"
    what = f"{error.strerror or error}: {error.filename or plan.output_dir}"
    return RunError(
        f"the run directory cannot be written: {what}{room}",
        hint=f"{remedy}, then go on with --resume",
    )


def _run(
    backend: Backend, inputs: RunInputs, options: RunOptions, sinks: Sequence[Sink]
) -> RunSummary:
    plan = inputs.plan
    with open_run_directory(
        plan.output_dir, resume=options.resume, overwrite=options.overwrite
    ) as directory:
        checkpoint, notes = _resume_point(plan, directory, options)
        step = checkpoint.step if checkpoint else -1
        evaluated = _evaluated(checkpoint) if checkpoint else False
        cut_after(directory.metrics_file, step, evaluated=evaluated)
        forget_evaluations_after(directory.evaluations, step)
        directory.comparison_file.unlink(missing_ok=True)
        write_text_atomic(directory.strategy_file, inputs.strategy_yaml)
        record = _run_record(inputs, options, directory.read_run() if options.resume else {})
        diagnosis = Diagnosis(read_events(directory.metrics_file))
        facts = run_facts(
            directory, plan, record["id"], inputs.strategy_yaml, resumed=options.resume
        )
        with all_sinks(directory, plan, facts, sinks, diagnosis) as emit:
            for note in notes:
                emit(MessageEvent(level="warning", text=redact(note)))
            if options.resume:
                emit(_resume_event(checkpoint))
            return _train(backend, inputs, directory, checkpoint, emit, record, diagnosis)


def _backend(plan: TrainingPlan) -> Backend:
    """The closed registry of backends: plans are for one of them."""
    if plan.backend == "llamafactory":
        from llamafarm.training.backends.llamafactory import train as llamafactory

        return llamafactory.train
    from llamafarm.training.backends.pytorch import loop

    return loop.train


def _train(
    backend: Backend,
    inputs: RunInputs,
    directory: RunDirectory,
    checkpoint: Checkpoint | None,
    emit: Callable[[Event], None],
    record: dict[str, Any],
    diagnosis: Diagnosis,
) -> RunSummary:
    """Whatever happens, run.json and summary.json say how it ended; a signal waits for that too."""
    earlier = _reached(directory.checkpoints, checkpoint.step).seconds if checkpoint else 0.0
    started = time.monotonic() - earlier
    with StopRequest() as stop:
        write_json_atomic(directory.run_file, redact_values(record | {"status": "running"}))
        job = TrainingJob(
            inputs.plan,
            inputs.data,
            inputs.tokenizer,
            directory,
            emit,
            stop,
            checkpoint,
            ends_for=lambda: diagnosis.overfitting if inputs.plan.stop_on_overfitting else "",
        )
        try:
            outcome = backend(job)
        except Exception as error:
            status = "interrupted" if isinstance(error, Interrupted) else "failed"
            text = error.summary if isinstance(error, LlamafarmError) else str(error)
            with contextlib.suppress(OSError, LlamafarmError):  # what stopped the run is the news
                seconds = time.monotonic() - started
                _close(inputs.plan, directory, emit, record, _Ending(status, seconds, text))
            raise
        seconds = outcome.state.seconds
        return _close(
            inputs.plan, directory, emit, record, _Ending("completed", seconds, "", outcome)
        )


@dataclass(frozen=True, slots=True)
class _Ending:
    status: str
    seconds: float
    error: str
    outcome: Outcome | None = None


def _close(
    plan: TrainingPlan,
    directory: RunDirectory,
    emit: Callable[[Event], None],
    record: Mapping[str, Any],
    ending: _Ending,
) -> RunSummary:
    summary = _finish(plan, directory, emit, ending)
    ended = {
        "status": ending.status,
        "ended": _now(),
        "error": ending.error,
        "actual": _actual(summary),
    }
    write_json_atomic(directory.run_file, redact_values({**record, **ended}))
    _report(directory, emit)
    return summary


def _report(directory: RunDirectory, emit: Callable[[Event], None]) -> None:
    """The page, the pictures and the model card. The run is as good without them."""
    try:
        from llamafarm.monitoring.report.write import write_report
        from llamafarm.monitoring.run_record import read_run_record
        from llamafarm.training.model_card import write_card

        record = read_run_record(directory.root)
        write_card(record)
        write_report(record)
    except Exception as error:  # two drawing libraries; the weights are safe already
        why = error.summary if isinstance(error, LlamafarmError) else str(error)
        text = f"the report could not be written ({redact(why)}); `llamafarm report` does it again"
        emit(MessageEvent(level="warning", text=text))


def _finish(
    plan: TrainingPlan, directory: RunDirectory, emit: Callable[[Event], None], ending: _Ending
) -> RunSummary:
    """The last event, and summary.json from all events of the run, those of earlier processes
    included.
    """
    outcome = ending.outcome
    events = read_events(directory.metrics_file)
    before = summarise(events, metric=plan.evaluation.metric, load_best=plan.evaluation.load_best)
    reached: LoopState | _Reached
    if outcome is None:
        reached = _reached_by(events, before, directory.checkpoints)
    else:
        reached = outcome.state
    end = EndEvent(
        status=ending.status,
        step=reached.step,
        best_step=outcome.state.best_step if outcome else before.best_step or 0,
        seconds=reached.seconds or ending.seconds,
        peak_memory_bytes=outcome.peak_memory_bytes if outcome else 0,
        tokens=reached.tokens,
        trained_tokens=reached.trained_tokens,
    )
    emit(end)
    # Read again: events that waited for the disk may be there now.
    events = [event for event in read_events(directory.metrics_file) if event != end]
    summary = summarise(
        [*events, end], metric=plan.evaluation.metric, load_best=plan.evaluation.load_best
    )
    summary = _compared(plan, directory, summary, ending.outcome, emit)
    write_json_atomic(directory.summary_file, summary.to_json())
    return summary


def _compared(
    plan: TrainingPlan,
    directory: RunDirectory,
    summary: RunSummary,
    outcome: Outcome | None,
    emit: Callable[[Event], None],
) -> RunSummary:
    """The summary with what the paired comparison of base, best and last says, which is written
    too. The run is as good without it.
    """
    try:
        found = compare_run(
            directory.evaluations,
            summary.best_step or 0,
            load_best=plan.evaluation.load_best,
            samples=outcome.samples if outcome else (),
            less_is_better=() if plan.evaluation.greater_is_better else (plan.evaluation.metric,),
        )
        if found is None:
            return summary
        write_comparison(directory.comparison_file, found)
    except (OSError, ValueError, ArithmeticError) as error:
        text = f"base, best and last are not compared: {redact(str(error))}"
        emit(MessageEvent(level="warning", text=text))
        return summary
    return replace(
        summary, against_base=found.against_base, last_against_best=found.last_against_best
    )


def _resume_point(
    plan: TrainingPlan, directory: RunDirectory, options: RunOptions
) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The checkpoint to go on from, and what has to be said about it. Raises when it belongs to
    another run.
    """
    if not options.resume:
        return None, ()
    checkpoint, passed_over = newest_valid(directory.checkpoints, also=_state_fault)
    if checkpoint is None:
        return None, passed_over
    if plan.evaluation.load_best:
        checkpoint, note = _with_its_best(directory.checkpoints, checkpoint)
        passed_over = (*passed_over, *note)
    differences = identity_differences(
        _saved_state(checkpoint.path)["identity"], run_identity(plan)
    )
    if differences and not options.resume_anyway:
        raise OutputError(
            f"{checkpoint.path.name} belongs to a run that differs from this one",
            [Problem(line) for line in differences],
            hint="start that run's own strategy again, or add --resume-anyway to go on with "
            "these values",
        )
    return checkpoint, (*passed_over, *(f"resumed anyway: {line}" for line in differences))


def _with_its_best(checkpoints: Path, newest: Checkpoint) -> tuple[Checkpoint, tuple[str, ...]]:
    """The newest checkpoint; where the best one it tells of is damaged, the newest one before that
    best step: training again from there makes it again.
    """
    best = int(_saved_state(newest.path)["best_global_step"])
    fault = fault_of_step(checkpoints, best) if best not in (0, newest.step) else ""
    if not fault:
        return newest, ()
    for earlier in reversed(list_checkpoints(checkpoints)):
        if earlier.step < best and not verify_checkpoint(earlier.path):
            said = f"checkpoint-{best}, the best so far, cannot be used: {fault}"
            return earlier, (f"{newest.path.name} is passed over: {said}",)
    return newest, ()


def _evaluated(checkpoint: Checkpoint) -> bool:
    """Whether it was saved after the evaluation of its step."""
    return bool(_saved_state(checkpoint.path)["loop"].get("evaluated_step") == checkpoint.step)


def _saved_state(path: Path) -> Mapping[str, Any]:
    """What trainer_state.json holds. Raises RunError where it lacks what is read of it."""
    try:
        state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise _no_state(path, "is no JSON object")
    for name, kind in _STATE.items():
        if type(state.get(name)) is not kind:
            raise _no_state(path, f"has no {name}")
    if not all(isinstance(value, str) for value in state["identity"].values()):
        raise _no_state(path, "has no identity")
    if type(state["loop"].get("evaluated_step")) is not int:
        raise _no_state(path, "has no loop")
    return state


def _no_state(path: Path, what: str) -> RunError:
    return RunError(
        f"{path.name} cannot be used: its {STATE_FILE} {what}",
        hint="remove that checkpoint: --resume goes on from the newest one before it",
    )


def _state_fault(path: Path) -> str:
    """Why the state of a checkpoint cannot be used; empty when it can."""
    try:
        _saved_state(path)
    except RunError as fault:
        return fault.summary.removeprefix(f"{path.name} cannot be used: ")
    except OSError as error:
        return f"its {STATE_FILE} cannot be read: {error.strerror or error}"
    return ""


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far a run is. seconds: of all its processes."""

    step: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0


def _reached(checkpoints: Path, step: int) -> _Reached:
    """What the checkpoint of a step tells; nothing where it cannot be read."""
    try:
        loop = _saved_state(checkpoint_of(checkpoints, step))["loop"]
        numbers = int(loop["tokens"]), int(loop["trained_tokens"]), float(loop["seconds"])
    except (OSError, LlamafarmError, KeyError, TypeError, ValueError):
        return _Reached()
    return _Reached(step, *numbers)


def _reached_by(events: Sequence[Event], before: RunSummary, checkpoints: Path) -> _Reached:
    """Of a run that was cut short: its last checkpoint knows of steps that no log line told."""
    saved = next((e.step for e in reversed(events) if isinstance(e, CheckpointEvent)), 0)
    found = _reached(checkpoints, saved) if saved >= before.steps else _Reached()
    told = _Reached(before.steps, before.train_tokens, before.trained_tokens)
    return found if found.step else told


def _resume_event(checkpoint: Checkpoint | None) -> ResumeEvent:
    if checkpoint is None:
        return ResumeEvent(
            step=0, path="", note="there is no checkpoint to resume from: starting at step 0"
        )
    return ResumeEvent(
        step=checkpoint.step,
        path=str(checkpoint.path),
        note=f"going on after step {checkpoint.step}",
    )


def _run_record(
    inputs: RunInputs, options: RunOptions, earlier: Mapping[str, Any]
) -> dict[str, Any]:
    """run.json but for how it ended. A resumed run keeps its id and its first start."""
    import hashlib

    plan = inputs.plan
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    record = {
        "id": _text(earlier, "id") or f"{plan.strategy_id}-{stamp}-{secrets.token_hex(3)}",
        "status": "running",
        "command": options.command,
        "started": _text(earlier, "started") or _now(),
        "resumed": [*_resumed(earlier), _now()] if options.resume else [],
        "strategy": plan.strategy_id,
        "title": plan.title,
        "run_name": plan.logging.run_name,
        "strategy_sha256": hashlib.sha256(inputs.strategy_yaml.encode()).hexdigest(),
        "model": asdict(plan.model.source),
        "data": inputs.data.report,
        "data_fingerprint": plan.data_fingerprint,
        "seed": plan.seed,
        "versions": _versions(plan),
        "hardware": inputs.hardware,
        "decisions": plan.decisions,
        "forecast": plan.forecast,
    }
    value: dict[str, Any] = to_jsonable(record)
    return value


def _text(earlier: Mapping[str, Any], name: str) -> str:
    """What an earlier run.json says, which anybody may have edited."""
    value = earlier.get(name)
    return value if isinstance(value, str) else ""


def _resumed(earlier: Mapping[str, Any]) -> list[str]:
    times = earlier.get("resumed")
    return [time for time in times if isinstance(time, str)] if isinstance(times, list) else []


def _actual(summary: RunSummary) -> dict[str, Any]:
    """What came true of the forecast."""
    return {
        "memory_bytes": summary.peak_memory_bytes,
        "seconds": summary.runtime_seconds,
        "train_tokens": summary.train_tokens,
        "tokens_per_second": summary.tokens_per_second,
    }


def _versions(plan: TrainingPlan) -> dict[str, str]:
    """Of this process, and of the environment of another engine."""
    its = plan.llamafactory.libraries if plan.llamafactory else {}
    found = {f"{name} (LLaMA-Factory)": version for name, version in its.items()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
