"""Out of memory: the run goes on with smaller parts, and ends as the run that had enough."""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import random
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import Tensor

from llamafarm.data.tokenized import PreparedData
from llamafarm.errors import EXIT_RUN_FAILED, RunError
from llamafarm.evaluation import loss as evaluation
from llamafarm.models.packed import PackedRow, pack
from llamafarm.monitoring.events import (
    EvalEvent,
    Event,
    OutOfMemoryEvent,
    SaveFailedEvent,
    StepEvent,
)
from llamafarm.planning.plan import Every, TrainingPlan
from llamafarm.training.backends.pytorch import gradients, snapshot
from llamafarm.training.checkpoint import list_checkpoints
from llamafarm.training.order import DataOrder
from tests.faults.campaign.numbers import command_line
from tests.faults.campaign.one_at_a_time import one_at_a_time
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.together import chance_of
from tests.training.runs import (
    NUM_ROWS,
    Ran,
    hash_of,
    random_rows,
    run_plan,
    tiny_data,
    tiny_plan,
    write_tiny_model,
)

SHORT_CASES, LONG_CASES = 20, 100
NUM_STEPS = 6
TOLERANCE = 1e-6
# What a micro-batch needs with gradient checkpointing, as a part of what it needs without.
_RECOMPUTED = 0.5
_ERRORS: dict[str, Callable[[], Exception]] = {
    "torch.OutOfMemoryError": lambda: torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 9.00 GiB"
    ),
    "MemoryError": MemoryError,
    "CPU": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 9663676416 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "MPS": lambda: RuntimeError(
        "MPS backend out of memory (MPS allocated: 17.91 GB, max allowed: 18.13 GB)."
    ),
}
_METHODS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"dropout": 0.0}},
    "full": {"adapter": None},
    "lora, dropout": {"adapter": {"dropout": 0.1}},
    "lora, NEFTune": {"adapter": {"dropout": 0.0}, "neftune": 5.0},
}
_PLAIN = ("lora", "full")


@dataclass(frozen=True, slots=True)
class Setting:
    """A run that memory is short for. error: a key of the allocators' errors."""

    method: str
    accumulation: int
    error: str

    @property
    def draws(self) -> bool:
        """Whether the forward pass draws random numbers."""
        return self.method not in _PLAIN


@dataclass(frozen=True)
class Bench:
    """Where the cases run, and what they are compared with, made once for each."""

    workdir: Path
    model: Path
    references: dict[tuple[str, int], Ran] = field(default_factory=dict)

    def plan(self, setting: Setting, output: str) -> TrainingPlan:
        """Six steps. The gradient itself is the update: an adaptive optimizer would divide its
        rounding by its size.
        """
        changes = dict(_METHODS[setting.method])
        optimizer = {
            "name": "sgd",
            "learning_rate": 0.5,
            "scheduler": "constant",
            "warmup_steps": 0,
            "neftune_noise_alpha": changes.pop("neftune", None),
        }
        return tiny_plan(
            self.model,
            self.workdir / output,
            optimizer=optimizer,
            batch={"accumulation_steps": setting.accumulation, "total_steps": NUM_STEPS},
            evaluation={"every": Every(2)},
            saving={"every": Every(2), "total_limit": 3},
            **changes,
        )

    def reference(self, setting: Setting) -> Ran:
        """The run that memory suffices for."""
        key = setting.method, setting.accumulation
        if key not in self.references:
            plan = self.plan(setting, f"reference-{len(self.references)}")
            self.references[key] = run_plan(plan, data=data())
        return self.references[key]

    def micro_batches(self, setting: Setting) -> list[tuple[int, ...]]:
        """The rows of each micro-batch of the run, in order."""
        order = DataOrder(NUM_ROWS, self.plan(setting, "unused").batch, 42)
        steps = range(1, NUM_STEPS + 1)
        return [batch for step in steps for batch in order.step(step).micro_batches]

    def largest(self, setting: Setting) -> int:
        """Tokens of the largest micro-batch."""
        rows = data().train
        return max(pack(rows, batch).num_computed for batch in self.micro_batches(setting))


def data() -> PreparedData:
    """The evaluation rows have a name of their own, so that a message shows which are meant."""
    return tiny_data(eval_name="held.jsonl")


# Memory that is short.


class Allocator:
    """Refuses micro-batches that need more tokens than there is room for.

    room: tokens; at: the number of the micro-batch that is refused whatever it needs, 0 for none;
    during: forward or backward.
    """

    def __init__(
        self,
        error: Callable[[], Exception],
        *,
        room: float = math.inf,
        at: int = 0,
        during: str = "forward",
    ) -> None:
        self._error, self._room, self._at, self._during = error, room, at, during
        self.calls = 0
        self.refused = 0

    @contextmanager
    def inside(self, module: Any) -> Iterator[None]:
        """Patch the forward pass as the module names it."""
        real = module.label_logits
        with patch.object(module, "label_logits", partial(self._logits, real)):
            yield

    def _logits(self, real: Callable[..., Tensor], model: Any, row: PackedRow, **named: Any) -> Any:
        self.calls += 1
        need = row.input_ids.numel() * (_RECOMPUTED if _recomputes(model) else 1.0)
        short = need > self._room or self.calls == self._at
        self.refused += short
        if short and self._during == "forward":
            raise self._error()
        logits = real(model, row, **named)
        if short:
            logits.register_hook(self._refuse)
        return logits

    def _refuse(self, gradient: Tensor) -> Tensor:
        raise self._error()


def _recomputes(model: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


@contextmanager
def short_saves(error: Callable[[], Exception], calls: Sequence[int]) -> Iterator[None]:
    """Some of the attempts to save find no memory for the optimizer's state."""
    real, count = snapshot.split_optimizer_state, 0

    def split(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count in calls:
            raise error()
        return real(*given, **named)

    with patch.object(snapshot, "split_optimizer_state", split):
        yield


@contextmanager
def short_updates(error: Callable[[], Exception], at: int) -> Iterator[None]:
    """The optimizer finds no memory for its own state, at one step."""
    real, count = torch.optim.SGD.step, 0

    def step(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            raise error()
        return real(*given, **named)

    with patch.object(torch.optim.SGD, "step", step):
        yield


# What must hold.


@dataclass(frozen=True)
class Ended:
    """How a run ended. error None: completed; trained: the rows of each step that was made."""

    plan: TrainingPlan
    ran: Ran | None
    error: Exception | None
    events: Sequence[Event]
    trained: dict[int, list[int]]

    def ooms(self, during: str = "") -> list[OutOfMemoryEvent]:
        """What was told of memory."""
        told = [e for e in self.events if isinstance(e, OutOfMemoryEvent)]
        return [e for e in told if during in ("", e.during)]


def run_under(
    plan: TrainingPlan,
    *shortages: AbstractContextManager[Any],
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Ended:
    """Train while memory is short."""
    ran, error = None, None
    events: list[Event] = []
    trained: dict[int, list[int]] = {}
    real = gradients.GradientMaker.make

    def make(maker: Any, batch: Any, *given: Any) -> Any:
        made = real(maker, batch, *given)
        if isinstance(made, gradients.Gradients):
            trained[batch.step] = sorted(batch.indices)
        return made

    def watch(event: Event) -> None:
        events.append(event)
        if on_event is not None:
            on_event(event)

    with ExitStack() as stack:
        stack.enter_context(patch.object(gradients.GradientMaker, "make", make))
        for shortage in shortages:
            stack.enter_context(shortage)
        try:
            ran = run_plan(plan, data=data(), resume=resume, on_event=watch)
        except Exception as failed:
            error = failed
    return Ended(plan, ran, error, events, trained)


def unlike(ended: Ended, reference: Ran) -> list[str]:
    """What differs from the run that had enough memory, beyond rounding."""
    if ended.ran is None:
        return [f"it stopped: {ended.error!r}"[:300]]
    found = []
    for name, kind in (("loss", StepEvent), ("eval_loss", EvalEvent)):
        one, other = (
            {e.step: getattr(e, name) for e in run.recorded if isinstance(e, kind)}
            for run in (ended.ran, reference)
        )
        apart = [s for s in other if abs(one.get(s, math.inf) / other[s] - 1) > TOLERANCE]
        found += [f"{name} differs at the steps {apart}"] if apart else []
    distance = weight_distance(ended.ran.directory.root, reference.directory.root)
    found += [f"weights differ by {distance:.1e}"] if distance > TOLERANCE else []
    return found + _not_once(ended)


def weight_distance(run: Path, reference: Path) -> float:
    """|w - r| / |r| over all weights of the last checkpoints."""
    one, other = (_last_weights(root) for root in (run, reference))
    apart = sum(float((one[name] - t).double().square().sum()) for name, t in other.items())
    return math.sqrt(apart / sum(float(t.double().square().sum()) for t in other.values()))


def _last_weights(root: Path) -> dict[str, Tensor]:
    last = list_checkpoints(root / "checkpoints")[-1].path
    return load_file(next(last.glob("*model.safetensors")))


def _not_once(ended: Ended) -> list[str]:
    """Steps whose gradient is not made of each of its rows, once."""
    order = DataOrder(NUM_ROWS, ended.plan.batch, 42)
    return [
        f"step {step} was made of the rows {rows}"
        for step, rows in ended.trained.items()
        if rows != sorted(order.step(step).rows)
    ]


def _told(ended: Ended, during: str, most: int) -> list[str]:
    """What is wrong with what was said of it: once for each thing that was made smaller."""
    told = ended.ooms(during)
    found = [] if 1 <= len(told) <= most else [f"{len(told)} oom events during {during}"]
    found += [f"an oom event without its action: {e}" for e in told if not e.action]
    if during == "step":
        found += [f"an oom event without its tokens: {e}" for e in told if e.tokens <= 0]
    others = [e.during for e in ended.ooms() if e.during != during]
    return found + ([f"oom events during {others}"] if others else [])


# Kinds of shortage: each returns what it did, and what was wrong with the outcome.

Outcome = tuple[str, list[str]]
Shortage = Callable[[Bench, Setting, str, random.Random], Outcome]


def _over_budget(during: str) -> Shortage:
    """Every micro-batch of more tokens than there is room for, to the end of the run."""

    def shortage(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
        most = bench.largest(setting)
        # With dropout, only what gradient checkpointing alone can answer draws the same numbers.
        least = math.ceil(most * _RECOMPUTED) if setting.draws else _longest_row()
        room = rng.randrange(least, most)
        allocator = Allocator(_ERRORS[setting.error], room=room, during=during)
        ended = run_under(bench.plan(setting, output), allocator.inside(gradients))
        found = unlike(ended, bench.reference(setting)) + _told(ended, "step", 4)
        return f"{during} of more than {room} tokens (largest {most})", found

    return shortage


def _longest_row() -> int:
    return int(data().train.lengths().max())


def _at_one(during: str) -> Shortage:
    """One micro-batch, whatever it needs: others took the memory for a moment."""

    def shortage(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
        at = rng.randint(1, len(bench.micro_batches(setting)))
        allocator = Allocator(_ERRORS[setting.error], at=at, during=during)
        ended = run_under(bench.plan(setting, output), allocator.inside(gradients))
        found = unlike(ended, bench.reference(setting)) + _told(ended, "step", 1)
        return f"{during} of micro-batch {at}", found

    return shortage


def _dropout_over_budget(
    bench: Bench, setting: Setting, output: str, rng: random.Random
) -> Outcome:
    """Dropout, and more than gradient checkpointing can answer: other numbers are drawn, and that
    is said; every row is still trained once.
    """
    setting = Setting("lora, dropout", setting.accumulation, setting.error)
    most = bench.largest(setting)
    room = rng.randrange(_longest_row() // 2 + 1, math.ceil(most * _RECOMPUTED) - 1)
    allocator = Allocator(_ERRORS[setting.error], room=room)
    ended = run_under(bench.plan(setting, output), allocator.inside(gradients))
    found = _not_once(ended) + _told(ended, "step", 5)
    found += [] if ended.error is None else [f"it stopped: {ended.error!r}"]
    if not any("draws other numbers" in e.action for e in ended.ooms()):
        found.append("that other numbers are drawn is not said")
    return f"dropout with room for {room} tokens (largest {most})", found


def _evaluation(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """Batches of an evaluation: all above a size, or one."""
    rows = data().eval
    assert rows is not None
    longest = int(rows.lengths().max())
    always = rng.random() < 0.5
    room = rng.randrange(longest, 90) if always else math.inf
    # The third batch of an evaluation is one row: there is nothing to halve.
    at = 0 if always else rng.choice((1, 2, 3, 6))
    allocator = Allocator(_ERRORS[setting.error], room=room, at=at)
    ended = run_under(bench.plan(setting, output), allocator.inside(evaluation))
    found = unlike(ended, bench.reference(setting)) + _told(ended, "evaluation", 3)
    what = f"evaluation of more than {room} tokens" if always else f"batch {at} of the evaluations"
    return what, found


def _eval_row_too_large(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """One evaluation row alone has no room: it is named."""
    rows = data().eval
    assert rows is not None
    lengths = rows.lengths().tolist()
    room = rng.randrange(min(lengths), max(lengths))
    first = next(row for row, length in enumerate(lengths) if length > room)
    allocator = Allocator(_ERRORS[setting.error], room=room)
    ended = run_under(bench.plan(setting, output), allocator.inside(evaluation))
    named = re.findall(r"\w+\.jsonl:\d+", str(ended.error))
    found = [] if isinstance(ended.error, RunError) else [f"it did not stop: {ended.error!r}"]
    found += [] if named == [f"held.jsonl:{first + 1}"] else [f"the error names {named}"]
    return f"evaluation row {first + 1} with room for {room} tokens", found


def _save_once(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """The first attempt of a save."""
    at = rng.randint(1, 3)
    shortage = short_saves(_ERRORS[setting.error], [at])
    ended = run_under(bench.plan(setting, output), shortage)
    found = unlike(ended, bench.reference(setting)) + _told(ended, "save", 1)
    found += ["a save failed"] if _failed_saves(ended) else []
    return f"attempt {at} to save", found


def _save_twice(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """Both attempts of the first save: the run goes on, and later ones succeed."""
    shortage = short_saves(_ERRORS[setting.error], [1, 2])
    ended = run_under(bench.plan(setting, output), shortage)
    found = unlike(ended, bench.reference(setting)) + _told(ended, "save", 1)
    found += [] if _failed_saves(ended) == 1 else [f"{_failed_saves(ended)} saves failed"]
    return "both attempts of the first save", found


def _every_save(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """No checkpoint is ever written: the final model comes from memory, and all of it is told."""
    shortage = short_saves(_ERRORS[setting.error], range(1, 100))
    ended = run_under(bench.plan(setting, output), shortage)
    if ended.ran is None:
        return "every save", [f"it stopped: {ended.error!r}"]
    reference = bench.reference(setting)
    last = hash_of(reference.directory.checkpoints / f"checkpoint-{NUM_STEPS}")
    found = [] if ended.ran.weights_hash == last else ["the final weights are not the last ones"]
    return "every save", found + ([] if _failed_saves(ended) == 3 else ["not all of it is told"])


def _failed_saves(ended: Ended) -> int:
    return sum(isinstance(e, SaveFailedEvent) for e in ended.events)


def _row_too_large(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """One row alone has no room, even with gradient checkpointing: it is named, and the run can be
    resumed where there is more memory.
    """
    lengths = data().train.lengths()
    room = rng.randrange(8, int(lengths.max() * _RECOMPUTED) - 1)
    order = [row for batch in bench.micro_batches(setting) for row in batch]
    first = next(row for row in order if lengths[row] * _RECOMPUTED > room)
    allocator = Allocator(_ERRORS[setting.error], room=room)
    plan = bench.plan(setting, output)
    ended = run_under(plan, allocator.inside(gradients))
    what = f"row {first + 1} with room for {room} tokens"
    if not isinstance(ended.error, RunError) or ended.error.exit_code != EXIT_RUN_FAILED:
        return what, [f"it did not stop: {ended.error!r}"]
    named = re.findall(r"\w+\.jsonl:\d+", ended.error.render())
    found = [] if named == [f"rows.jsonl:{first + 1}"] else [f"the error names {named}"]
    found += [] if "hint:" in ended.error.render() else ["no hint"]
    again = run_under(plan, resume=True)
    if setting.draws:
        return what, found + ([f"resumed: {again.error!r}"] if again.error else [])
    return what, found + unlike(again, bench.reference(setting))


def stopped_and_resumed(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """A run that was short of memory, stopped and resumed: bitwise the one that was not stopped,
    because what it had learnt of memory is in the checkpoint.
    """
    most = bench.largest(setting)
    room = rng.randrange(_longest_row(), math.ceil(most * 0.8))
    allocators = [Allocator(_ERRORS[setting.error], room=room) for _ in range(3)]
    whole = run_under(bench.plan(setting, f"{output}-whole"), allocators[0].inside(gradients))
    first = whole.ooms()[0].step if whole.ooms() else 0
    at = rng.randint(min(first, NUM_STEPS - 1), NUM_STEPS - 1)

    def stop(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == at:
            signal.raise_signal(signal.SIGTERM)

    plan = bench.plan(setting, output)
    run_under(plan, allocators[1].inside(gradients), on_event=stop)
    resumed = run_under(plan, allocators[2].inside(gradients), resume=True)
    what = f"room for {room} tokens, stopped after step {at}"
    if whole.ran is None or resumed.ran is None:
        return what, [f"it stopped: {whole.error!r} {resumed.error!r}"]
    found = [] if whole.ran.weights_hash == resumed.ran.weights_hash else ["not bitwise"]
    later = [e.action for e in whole.ooms() if e.step > at]
    if [e.action for e in resumed.ooms()] != later:
        found.append(f"what it had learnt was forgotten: {resumed.ooms()}")
    found += [] if _memory_of(plan) == _memory_of(whole.plan) else ["the last states differ"]
    return what, found


def _memory_of(plan: TrainingPlan) -> tuple[Any, ...]:
    last = list_checkpoints(plan.output_dir / "checkpoints")[-1].path
    state = json.loads((last / "trainer_state.json").read_bytes())["loop"]
    return state["token_budget"], state["activations_recomputed"]


def _optimizer(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """The update itself: nothing can be made smaller, so the run ends, and can be resumed."""
    at = rng.randint(1, NUM_STEPS)
    plan = bench.plan(setting, output)
    ended = run_under(plan, short_updates(_ERRORS[setting.error], at))
    what = f"update {at}"
    if ended.error is None:
        return what, unlike(ended, bench.reference(setting))
    if not isinstance(ended.error, RunError):
        return what, [f"it raised {ended.error!r}"]
    again = run_under(plan, resume=True)
    if again.ran is None:
        return what, [f"it cannot be resumed: {again.error!r}"]
    same = again.ran.weights_hash == bench.reference(setting).weights_hash
    return what, [] if same else ["resumed, it ends with other weights"]


def _whole_command(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """One row that does not fit, through the command: its exit code, and what a person reads."""
    place = rng.randrange(20)
    rows = [{"question": f"w{i + 7} w1 w2", "answer": f"w{i + 40} w9"} for i in range(30)]
    rows[place]["answer"] = " ".join(f"w{i}" for i in range(40, 80))
    train, held = bench.workdir / f"{output}.jsonl", bench.workdir / f"{output}-held.jsonl"
    for file, part in ((train, rows[:20]), (held, rows[20:])):
        file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    arguments = ["train", "--dataset", str(train), "--eval-dataset", str(held)]
    arguments += ["--base-model", str(bench.model), "--output", str(bench.workdir / output)]
    arguments += ["--set", "max_steps=8", "--batch-size", "4"]
    allocator = Allocator(_ERRORS[setting.error], room=18)
    with allocator.inside(gradients):
        code, said = command_line(bench.workdir, arguments)
    found = [] if code == EXIT_RUN_FAILED else [f"exit code {code}"]
    if f"{train.name}:{place + 1}" not in said or "hint:" not in said:
        found.append("the row is not named")
    found += ["Traceback"] if "Traceback" in said else []
    return f"llamafarm train, line {place + 1}", found + ([said[-400:]] if found else [])


# A real one.

_CHILD_SECONDS = 240.0
_WIDE = 32_768
_ROWS_AT_ONCE = 16


def _real(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """The kernel refuses memory to a process of its own, whose logits are what takes most of it."""
    model = bench.workdir / "wide"
    if not model.exists():
        write_tiny_model(model, vocab_size=_WIDE)
        whole = _wide_plan(model, bench.workdir / "wide-reference")
        _in_child(partial(run_plan, whole, data=_wide_data()))
    spare = rng.randrange(180, 320) * 2**20
    plan = _wide_plan(model, bench.workdir / output)
    status = _in_child(partial(_train_within, plan, spare))
    what = f"RLIMIT_DATA {spare >> 20} MiB above what is held"
    if status:
        return what, [f"the process ended with {status}"]
    lines = (plan.output_dir / "metrics.jsonl").read_text().splitlines()
    told = [event for event in map(json.loads, lines) if event["event"] == "oom"]
    distance = weight_distance(plan.output_dir, bench.workdir / "wide-reference")
    found = [] if told else ["memory was never short"]
    return what, found + ([f"weights differ by {distance:.1e}"] if distance > TOLERANCE else [])


def _wide_plan(model: Path, output: Path) -> TrainingPlan:
    """One step, whose only micro-batch has logits of about 100 MiB."""
    return tiny_plan(
        model,
        output,
        adapter={"dropout": 0.0},
        optimizer={"name": "sgd", "scheduler": "constant", "warmup_steps": 0},
        batch={
            "micro_batch_size": _ROWS_AT_ONCE,
            "accumulation_steps": 1,
            "eval_batch_size": 2,
            "total_steps": 1,
        },
        num_rows=_ROWS_AT_ONCE,
    )


def _wide_data() -> PreparedData:
    whole = tiny_data()
    rows = random_rows(_ROWS_AT_ONCE, 3, longest=100)
    return PreparedData(rows, whole.eval, whole.report)


def _train_within(plan: TrainingPlan, spare: int) -> None:
    # What the libraries take is no part of the spare.
    for library in ("transformers.models.llama.modeling_llama", "peft", "accelerate", "datasets"):
        importlib.import_module(library)
    importlib.import_module("llamafarm.training.backends.pytorch.loop")
    held = int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (held + spare, hard))
    run_plan(plan, data=_wide_data())


def _in_child(function: Callable[[], object]) -> int:
    """Exit status of a new process that calls a function: 0 where it returned.

    Not a copy of this one, which may hold memory that it has freed and a copy could use.
    """
    process = multiprocessing.get_context("spawn").Process(target=function)
    process.start()
    process.join(_CHILD_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
    return int(process.exitcode or 0)


SHORTAGES: tuple[Shortage, ...] = (
    _over_budget("forward"),
    _over_budget("backward"),
    _at_one("forward"),
    _at_one("backward"),
    _dropout_over_budget,
    _evaluation,
    _eval_row_too_large,
    _save_once,
    _save_twice,
    _every_save,
    _row_too_large,
    stopped_and_resumed,
    stopped_and_resumed,
    _optimizer,
    _whole_command,
) + ((_real,) if sys.platform == "linux" else (stopped_and_resumed,))


def run_case(number: int, bench: Bench) -> Case:
    """One shortage; every method, accumulation and allocator meets every kind in turn."""
    turn, kind = divmod(number, len(SHORTAGES))
    setting = Setting(
        method=tuple(_METHODS)[(kind + turn) % 4],
        accumulation=(1, 2)[(kind // 2 + turn) % 2],
        error=tuple(_ERRORS)[(kind // 3 + turn) % 4],
    )
    what, found = SHORTAGES[kind](bench, setting, f"case-{number}", chance_of("oom", number))
    name = f"{number}: {what}: {setting.error}, {setting.method}"
    name += f", accumulation {setting.accumulation}"
    return Case(name, not found, "; ".join(found))


def oom_cases(workdir: Path, form: Form) -> Iterator[Case]:
    """Every kind of shortage in turn."""
    bench = Bench(workdir, write_tiny_model(workdir / "model"))
    numbers = range(SHORT_CASES if form == "short" else LONG_CASES)
    yield from one_at_a_time(partial(run_case, number, bench) for number in numbers)


ROW = Row(
    key="oom",
    fault="out of memory in forward, backward, update, evaluation and save: injected, and real",
    passes_when="weights and losses are those of a run with enough memory, or a row is named",
    cases=oom_cases,
)
