"""One run, from a plan to a finished run directory, whatever happens on the way."""

from __future__ import annotations

import importlib.metadata
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    StrategyError,
)
from llamafarm.files import write_json_atomic, write_text_atomic
from llamafarm.hardware.facts import Hardware
from llamafarm.monitoring.events import EndEvent, Event, MessageEvent, ResumeEvent, Sink
from llamafarm.monitoring.fanout import Fanout
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.metrics_file import MetricsFile, cut_after, read_events
from llamafarm.monitoring.summary import RunSummary, summarise
from llamafarm.monitoring.tensorboard import TensorBoardSink, require_tensorboard
from llamafarm.planning.plan import TrainingPlan
from llamafarm.training.checkpoint import Checkpoint, newest_valid
from llamafarm.training.identity import identity_differences, run_identity
from llamafarm.training.job import Backend, Outcome, TrainingJob
from llamafarm.training.run_directory import RunDirectory, open_run_directory
from llamafarm.training.signals import StopRequest

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
    plan = inputs.plan
    backend = _backend(plan)
    if "tensorboard" in plan.logging.report_to:
        require_tensorboard()
    with open_run_directory(
        plan.output_dir, resume=options.resume, overwrite=options.overwrite
    ) as directory:
        checkpoint, notes = _resume_point(plan, directory, options)
        step = checkpoint.step if checkpoint else -1
        cut_after(directory.metrics_file, step)
        write_text_atomic(directory.strategy_file, inputs.strategy_yaml)
        record = _run_record(inputs, options, directory.read_run() if options.resume else {})
        with _all_sinks(directory, plan, sinks) as emit:
            for note in notes:
                emit(MessageEvent(level="warning", text=note))
            if options.resume:
                emit(_resume_event(checkpoint))
            return _train(backend, inputs, directory, checkpoint, emit, record)


def _backend(plan: TrainingPlan) -> Backend:
    """The closed registry of backends: a name that is not in it is the user's error."""
    if plan.backend == "pytorch":
        from llamafarm.training.backends.pytorch.loop import train

        return train
    raise StrategyError(
        f"the fine_tuner type {plan.backend} is not part of this version",
        hint="write `type: pytorch`",
    )


def _train(
    backend: Backend,
    inputs: RunInputs,
    directory: RunDirectory,
    checkpoint: Checkpoint | None,
    emit: Callable[[Event], None],
    record: dict[str, Any],
) -> RunSummary:
    started = time.monotonic()
    write_json_atomic(directory.run_file, record | {"status": "running"})
    status, outcome = "failed", None
    error_text = ""
    try:
        with StopRequest() as stop:
            job = TrainingJob(
                inputs.plan, inputs.data, inputs.tokenizer, directory, emit, stop, checkpoint
            )
            outcome = backend(job)
        status = "completed"
    except Interrupted as stopped:
        status, error_text = "interrupted", stopped.summary
        raise
    except LlamafarmError as error:
        error_text = error.summary
        raise
    except OSError as error:
        error_text = str(error)
        raise RunError(
            f"the run directory cannot be written: {error}",
            hint="free some disk space, then go on with --resume",
        ) from error
    finally:
        seconds = outcome.state.seconds if outcome else time.monotonic() - started
        summary = _finish(inputs.plan, directory, emit, outcome, status, seconds)
        ended = {"status": status, "ended": _now(), "error": error_text, "actual": _actual(summary)}
        write_json_atomic(directory.run_file, record | ended)
    return summary


def _finish(
    plan: TrainingPlan,
    directory: RunDirectory,
    emit: Callable[[Event], None],
    outcome: Outcome | None,
    status: str,
    seconds: float,
) -> RunSummary:
    """The last event, and summary.json from all events of the run, those of earlier processes
    included.
    """
    events = read_events(directory.metrics_file)
    before = summarise(events, metric=plan.evaluation.metric, load_best=plan.evaluation.load_best)
    end = EndEvent(
        status=status,
        step=outcome.state.step if outcome else before.steps,
        best_step=outcome.state.best_step if outcome else before.best_step or 0,
        seconds=seconds,
        peak_memory_bytes=outcome.peak_memory_bytes if outcome else 0,
    )
    emit(end)
    summary = summarise(
        [*events, end], metric=plan.evaluation.metric, load_best=plan.evaluation.load_best
    )
    write_json_atomic(directory.summary_file, summary.to_json())
    return summary


def _resume_point(
    plan: TrainingPlan, directory: RunDirectory, options: RunOptions
) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The checkpoint to go on from, and what has to be said about it. Raises when it belongs to
    another run.
    """
    if not options.resume:
        return None, ()
    checkpoint, passed_over = newest_valid(directory.checkpoints)
    if checkpoint is None:
        return None, passed_over
    differences = identity_differences(_saved_identity(checkpoint.path), run_identity(plan))
    if differences and not options.resume_anyway:
        raise OutputError(
            f"{checkpoint.path.name} belongs to a run that differs from this one",
            [Problem(line) for line in differences],
            hint="start that run's own strategy again, or add --resume-anyway to go on with "
            "these values",
        )
    return checkpoint, (*passed_over, *(f"resumed anyway: {line}" for line in differences))


def _saved_identity(path: Path) -> Mapping[str, str]:
    import json

    state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    identity: Mapping[str, str] = state["identity"]
    return identity


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


@contextmanager
def _all_sinks(
    directory: RunDirectory, plan: TrainingPlan, sinks: Sequence[Sink]
) -> Iterator[Callable[[Event], None]]:
    """metrics.jsonl first: what a person saw is then on disk."""
    own: list[Sink] = [MetricsFile(directory.metrics_file)]
    if "tensorboard" in plan.logging.report_to:
        own.append(TensorBoardSink(directory.logs))
    fanout = Fanout([*own, *sinks])
    try:
        yield fanout.handle
    finally:
        fanout.close()


def _run_record(
    inputs: RunInputs, options: RunOptions, earlier: Mapping[str, Any]
) -> dict[str, Any]:
    """run.json but for how it ended. A resumed run keeps its id and its first start."""
    import hashlib

    plan = inputs.plan
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    record = {
        "id": earlier.get("id") or f"{plan.strategy_id}-{stamp}-{secrets.token_hex(3)}",
        "status": "running",
        "command": options.command,
        "started": earlier.get("started") or _now(),
        "resumed": [*earlier.get("resumed", []), _now()] if options.resume else [],
        "strategy": plan.strategy_id,
        "run_name": plan.logging.run_name,
        "strategy_sha256": hashlib.sha256(inputs.strategy_yaml.encode()).hexdigest(),
        "model": asdict(replace(plan.model.source)),
        "data": inputs.data.report,
        "data_fingerprint": plan.data_fingerprint,
        "seed": plan.seed,
        "versions": _versions(),
        "hardware": inputs.hardware,
        "decisions": plan.decisions,
        "forecast": plan.forecast,
    }
    value: dict[str, Any] = to_jsonable(record)
    return value


def _actual(summary: RunSummary) -> dict[str, Any]:
    """What came true of the forecast."""
    return {
        "memory_bytes": summary.peak_memory_bytes,
        "seconds": summary.runtime_seconds,
        "train_tokens": summary.train_tokens,
        "tokens_per_second": summary.tokens_per_second,
    }


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
