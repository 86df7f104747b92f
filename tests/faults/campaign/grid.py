"""Resume grid: however a run was broken off, it ends as the run that was not."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from llamafarm.errors import Interrupted
from llamafarm.monitoring.events import (
    CheckpointEvent,
    EndEvent,
    EvalEvent,
    EvalProgressEvent,
    Event,
    MessageEvent,
    ResumeEvent,
    SettingsEvent,
    StartEvent,
    StepEvent,
)
from llamafarm.planning.plan import Every, TrainingPlan
from llamafarm.training.checkpoint import list_checkpoints
from tests.faults.campaign.one_at_a_time import one_at_a_time
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.together import chance_of
from tests.training.runs import (
    Killed,
    Ran,
    run_plan,
    tiny_data,
    tiny_plan,
    write_tiny_model,
)

NUM_ROWS = 23
SHORT_CELLS, LONG_CELLS = 16, 80
# Neither a new epoch nor an evaluation begins with every step.
_STEPS = {1: 10, 3: 6}
_EVAL_EVERY = {1: 2, 3: 1}
_SAVE_EVERY = {1: 4, 3: 2}

# Factors with two values, and those with more.
_TWO: dict[str, tuple[Any, Any]] = {
    "accumulation": (1, 3),
    "dropout": (0.1, 0.0),
    "early_stopping": (False, True),
    "metric": ("eval_loss", "accuracy"),
    "workers": (0, 2),
    "neftune": (False, True),
    "gradient_checkpointing": (False, True),
}
_METHODS = ("lora", "full", "dora", "rslora")
_SCHEDULERS = ("cosine", "linear", "constant", "cosine_with_restarts", "polynomial")
_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "adafactor")


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination. halt: how the run is broken off, a key of HALTS."""

    method: str
    scheduler: str
    optimizer: str
    halt: str
    accumulation: int
    dropout: float
    early_stopping: bool
    metric: str
    workers: int
    neftune: bool
    gradient_checkpointing: bool

    @property
    def name(self) -> str:
        """All values, in words."""
        parts = [
            self.method,
            self.optimizer,
            self.scheduler,
            f"accumulation {self.accumulation}",
            f"dropout {self.dropout:g}",
            f"best {self.metric}",
        ]
        parts += ["early stopping"] if self.early_stopping else []
        parts += [f"{self.workers} workers"] if self.workers else []
        parts += ["NEFTune"] if self.neftune else []
        parts += ["gradient checkpointing"] if self.gradient_checkpointing else []
        return f"{self.halt}: {', '.join(parts)}"


def cells(count: int) -> list[Cell]:
    """The first `count` cells of a covering design.

    Cells come in complementary pairs, the two-valued factors of pair j being row j of a Hadamard
    matrix of order 8. So 16 cells hold every pair of two-valued factors' values, and every value
    of the other factors with each of them; 80 hold every pair of values of any two factors.
    """
    return [_cell(number // 2, complement=number % 2 == 1) for number in range(count)]


def _cell(pair: int, *, complement: bool) -> Cell:
    two = {
        name: values[(((pair % 8) & column).bit_count() + complement) % 2]
        for column, (name, values) in enumerate(_TWO.items(), start=1)
    }
    return Cell(
        # The periods 7, 5, 4 and 16 let every two of these meet in all their combinations.
        halt=tuple(HALTS)[pair % 7],
        scheduler=_SCHEDULERS[pair % 5],
        optimizer=_OPTIMIZERS[pair % 4],
        method=_METHODS[(pair + pair // 4) % 4],
        **two,
    )


def plan_of(cell: Cell, models: Path, output: Path) -> TrainingPlan:
    """The plan of a cell. A full run's dropout is the attention's, a LoRA run's the adapter's."""
    adapter: dict[str, Any] | None = {
        "dropout": cell.dropout,
        "use_dora": cell.method == "dora",
        "use_rslora": cell.method == "rslora",
    }
    if cell.method == "full":
        adapter = None
    kwargs = {
        "cosine_with_restarts": {"num_cycles": 2},
        "polynomial": {"power": 2.0, "lr_end": 1e-4},
    }
    every = Every(_EVAL_EVERY[cell.accumulation])
    return tiny_plan(
        models / ("attention-dropout" if adapter is None and cell.dropout else "plain"),
        output,
        num_rows=NUM_ROWS,
        adapter=adapter,
        optimizer={
            "name": cell.optimizer,
            "scheduler": cell.scheduler,
            "scheduler_kwargs": kwargs.get(cell.scheduler, {}),
            "learning_rate": 0.5 if cell.optimizer == "sgd" else 2e-2,
            "neftune_noise_alpha": 5.0 if cell.neftune else None,
        },
        batch={
            "accumulation_steps": cell.accumulation,
            "total_steps": _STEPS[cell.accumulation],
            "num_workers": cell.workers,
        },
        evaluation={
            "every": every,
            "metric": cell.metric,
            "greater_is_better": cell.metric == "accuracy",
            # Nothing is ever an improvement on the first: the run ends early, whatever it learns.
            "patience": 3 if cell.early_stopping else 0,
            "threshold": 1e9 if cell.early_stopping else 1e-4,
        },
        saving={"every": Every(_SAVE_EVERY[cell.accumulation]), "total_limit": 2},
        gradient_checkpointing=cell.gradient_checkpointing,
    )


# How a run is broken off.


@dataclass(frozen=True, slots=True)
class Halt:
    """Where one process ends: at its count-th event of a kind, or at its fsync-th fsync.

    stop: it is asked to stop there; otherwise it is killed there.
    """

    event: type[Event] = Event
    count: int = 0
    fsync: int = 0
    stop: bool = False

    @property
    def name(self) -> str:
        """In words."""
        how = "stop" if self.stop else "kill"
        return f"{how} at {self.event.kind if self.count else 'fsync'} {self.count or self.fsync}"


def _steps(whole: Ran, *, epoch_end: bool) -> list[int]:
    """Steps inside an epoch or at the end of one, without the last step of the run."""
    return [
        e.step
        for e in whole.events
        if isinstance(e, StepEvent)
        and e.step < whole.summary.steps
        and (e.epoch == int(e.epoch)) == epoch_end
    ]


def _any(whole: Ran, rng: random.Random, event: type[Event], *, stop: bool = False) -> Halt:
    number = sum(isinstance(e, event) for e in whole.events)
    return Halt(event, rng.randint(1, number), stop=stop)


def _stop_mid_epoch(whole: Ran, rng: random.Random) -> list[Halt]:
    return [Halt(StepEvent, rng.choice(_steps(whole, epoch_end=False)), stop=True)]


def _stop_at_epoch_end(whole: Ran, rng: random.Random) -> list[Halt]:
    return [Halt(StepEvent, rng.choice(_steps(whole, epoch_end=True)), stop=True)]


def _stop_in_evaluation(whole: Ran, rng: random.Random) -> list[Halt]:
    return [_any(whole, rng, EvalProgressEvent, stop=True)]


def _kill_at_an_event(whole: Ran, rng: random.Random) -> list[Halt]:
    return [_any(whole, rng, rng.choice((StepEvent, EvalEvent, CheckpointEvent)))]


def _kill_in_evaluation(whole: Ran, rng: random.Random) -> list[Halt]:
    return [_any(whole, rng, EvalProgressEvent)]


def _kill_in_a_save(whole: Ran, rng: random.Random) -> list[Halt]:
    return [Halt(fsync=rng.randint(1, _num_fsyncs(whole)))]


def _several(whole: Ran, rng: random.Random) -> list[Halt]:
    return [
        Halt(StepEvent, rng.randint(1, 3)),
        Halt(StepEvent, rng.randint(1, 3), stop=True),
        Halt(fsync=rng.randint(1, 11)),
        Halt(EvalProgressEvent, rng.randint(1, 2)),
    ]


HALTS: dict[str, Callable[[Ran, random.Random], list[Halt]]] = {
    "stopped mid-epoch": _stop_mid_epoch,
    "stopped at an epoch's end": _stop_at_epoch_end,
    "stopped in an evaluation": _stop_in_evaluation,
    "killed at an event": _kill_at_an_event,
    "killed in an evaluation": _kill_in_evaluation,
    "killed in a save": _kill_in_a_save,
    "killed and stopped again and again": _several,
}


def _num_fsyncs(whole: Ran) -> int:
    """At least so many does a run make: one for each file of a checkpoint, and one for it."""
    saves = [e for e in whole.events if isinstance(e, CheckpointEvent)]
    return len(saves) * 10


class MortalProcess:
    """Context manager for a process that can be killed: from then on it changes no file.

    fsync: the number of the fsync that it dies at, 0 for none.
    """

    _CHANGING = ("write", "fsync", "unlink", "rmdir", "rename", "replace", "mkdir")

    def __init__(self, fsync: int = 0) -> None:
        self._dies_at = fsync
        self._fsyncs = 0
        self._dead = False
        real = {name: getattr(os, name) for name in self._CHANGING}
        calls = {name: partial(self._call, name, real[name]) for name in real}
        self._patch = patch.multiple(os, **calls)

    def __enter__(self) -> MortalProcess:
        self._patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.stop()

    def die(self) -> NoReturn:
        """As SIGKILL would do it: no clean-up of the program has an effect any more."""
        self._dead = True
        raise Killed

    def _call(self, name: str, real: Callable[..., Any], *given: Any, **named: Any) -> Any:
        self._fsyncs += name == "fsync"
        if self._dead or self._fsyncs == self._dies_at > 0:
            self.die()
        return real(*given, **named)


def run_in_parts(plan: TrainingPlan, halts: Sequence[Halt]) -> tuple[Ran, int]:
    """Train to the end, broken off by each halt in turn.

    Returns the run and how often it was really broken off: a halt that a shorter rest of the run
    never reaches does nothing.
    """
    broken = 0
    for number, halt in enumerate([*halts, Halt()]):
        with MortalProcess(halt.fsync) as process:
            try:
                data, watch = tiny_data(NUM_ROWS), _obedient(halt, process)
                return run_plan(plan, data=data, resume=number > 0, on_event=watch), broken
            except (Interrupted, Killed):
                broken += 1
    raise AssertionError("the last part is not broken off")


def _obedient(halt: Halt, process: MortalProcess) -> Callable[[Event], None]:
    seen = 0

    def watch(event: Event) -> None:
        nonlocal seen
        if not isinstance(event, halt.event):
            return
        seen += 1
        if seen == halt.count and halt.stop:
            signal.raise_signal(signal.SIGTERM)
        elif seen == halt.count:
            process.die()

    return watch


# What must be equal.

_TIMES = {
    "seconds",
    "tokens_per_second",
    "window_seconds",
    "step_seconds",
    "data_seconds",
    "runtime_seconds",
    "memory_bytes",
    "peak_memory_bytes",
}
# Compared through metrics.jsonl and summary.json.
_OF_EVALUATIONS = {
    "evaluated_step",
    "eval_loss",
    "best_step",
    "best_metric",
    "best_eval_loss",
    "evaluations_without_improvement",
    "stopped_early",
}
# They tell of processes, not of the training.
_OF_PROCESSES = (
    SettingsEvent,
    StartEvent,
    ResumeEvent,
    MessageEvent,
    CheckpointEvent,
    EvalProgressEvent,
    EndEvent,
)


def differences(whole: Ran, parts: Ran) -> list[str]:
    """What the run in parts has that the whole one has not, a line each."""
    found = []
    if told(whole) != told(parts):
        found.append(f"events differ: {_first_difference(told(whole), told(parts))}")
    if whole.weights_hash != parts.weights_hash:
        found.append("final weights differ")
    summaries = [_untimed(run.summary.to_json()) for run in (whole, parts)]
    if summaries[0] != summaries[1]:
        found.append(f"summary.json differs: {summaries[0]} and {summaries[1]}")
    last = list_checkpoints(whole.directory.checkpoints)[-1].path
    other = parts.directory.checkpoints / last.name
    return found + different_files(last, other)


def told(run: Ran) -> list[dict[str, Any]]:
    """What the run said of the training, without times."""
    return [_untimed(e.to_json()) for e in run.recorded if not isinstance(e, _OF_PROCESSES)]


def different_files(one: Path, other: Path) -> list[str]:
    """Files of a checkpoint that are not the same in another, times aside."""
    if not other.is_dir():
        return [f"{other.name} is missing"]
    names = sorted({p.name for directory in (one, other) for p in directory.iterdir()})
    return [
        f"{one.name}/{name} differs"
        for name in names
        if name != "manifest.json" and _content(one / name) != _content(other / name)
    ]


def _content(file: Path) -> Any:
    if not file.is_file():
        return None
    if file.name != "trainer_state.json":
        return file.read_bytes()
    state = json.loads(file.read_bytes())
    # Where a stop came inside an evaluation, the checkpoint was made before it.
    loop = {k: v for k, v in _untimed(state["loop"]).items() if k not in _OF_EVALUATIONS}
    return {key: value for key, value in state.items() if "best" not in key} | {"loop": loop}


def _untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _TIMES}


def _first_difference(one: list[Any], other: list[Any]) -> str:
    for a, b in zip(one, other, strict=False):
        if a != b:
            return f"{a} and {b}"
    return f"{len(one)} and {len(other)} events"


# The row.


def run_cell(number: int, cell: Cell, models: Path, workdir: Path) -> Case:
    """One cell, in a directory of its own."""
    whole = run_plan(plan_of(cell, models, workdir / f"{number}-whole"), data=tiny_data(NUM_ROWS))
    halts = HALTS[cell.halt](whole, chance_of("grid", number))
    parts, broken = run_in_parts(plan_of(cell, models, workdir / f"{number}-parts"), halts)
    found = differences(whole, parts)
    if not broken:
        found.append("it was never broken off")
    detail = "; ".join(found) or f"bitwise after {broken} of {len(halts)} halts"
    name = f"{number}: {cell.name} ({', '.join(halt.name for halt in halts)})"
    return Case(name, not found, detail, {"broken off": broken})


def evaluated_as_never(number: int, method: str, models: Path, workdir: Path) -> Case:
    """Stopped and evaluated after every step, with dropout and noise: the weights of a run that was
    neither.
    """
    cell = Cell(method, "cosine", "adamw_torch", "", 1, 0.1, False, "eval_loss", 0, True, False)
    quiet = plan_of(cell, models, workdir / f"{number}-quiet")
    never = replace(quiet.evaluation, enabled=False)
    whole = run_plan(replace(quiet, evaluation=never), data=tiny_data(NUM_ROWS))
    always = replace(quiet.evaluation, every=Every(1), load_best=False)
    plan = replace(quiet, evaluation=always, output_dir=workdir / f"{number}-parts")
    halts = [Halt(StepEvent, 1, stop=True)] * (_STEPS[1] - 1)
    parts, broken = run_in_parts(plan, halts)
    losses = [[e.loss for e in r.recorded if isinstance(e, StepEvent)] for r in (whole, parts)]
    same = whole.weights_hash == parts.weights_hash and losses[0] == losses[1]
    evaluations = sum(isinstance(e, EvalEvent) for e in parts.recorded)
    detail = f"{broken} stops, {evaluations} evaluations"
    name = f"{number}: {method}, stopped and evaluated after every step"
    return Case(name, same and broken == len(halts), detail, {"broken off": broken})


def grid_cases(workdir: Path, form: Form) -> Iterator[Case]:
    """Every cell, then two runs whose evaluations must not move what is drawn."""
    models = workdir / "models"
    write_tiny_model(models / "plain")
    write_tiny_model(models / "attention-dropout", attention_dropout=0.1)
    chosen = cells(SHORT_CELLS if form == "short" else LONG_CELLS)
    jobs = [partial(run_cell, n, cell, models, workdir) for n, cell in enumerate(chosen)]
    for number, method in enumerate(("lora", "full"), start=len(chosen)):
        jobs.append(partial(evaluated_as_never, number, method, models, workdir))
    yield from one_at_a_time(jobs)


ROW = Row(
    key="grid",
    fault="runs of every kind, stopped and killed at chosen instants, then resumed",
    passes_when="weights, optimizer, losses and best step are bitwise the uninterrupted run's",
    cases=grid_cases,
)
