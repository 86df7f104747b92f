"""Numbers gone wrong: no NaN and no Infinity reaches the disk, and the row at fault is named."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llamafarm.data.tokenized import PreparedData
from llamafarm.errors import EXIT_RUN_FAILED, EXIT_USER, LlamafarmError, RunError
from llamafarm.evaluation import loss as evaluation
from llamafarm.models.packed import PackedRow
from llamafarm.monitoring.events import EvalEvent, Event, NonFiniteEvent, StepEvent
from llamafarm.monitoring.metrics_file import read_events
from llamafarm.planning.plan import Every, TrainingPlan
from llamafarm.training.backends.pytorch import gradients
from llamafarm.training.checkpoint import list_checkpoints
from llamafarm.training.order import DataOrder
from tests.faults.campaign.one_at_a_time import one_at_a_time
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.together import chance_of
from tests.training.runs import Ran, run_plan, tiny_data, tiny_plan, write_tiny_model

SHORT_CASES, LONG_CASES = 20, 100
NUM_ROWS, NUM_STEPS = 23, 8
# No other row of the data holds this token.
_MARK = 300
_VALUES = (math.nan, math.inf, -math.inf)


@dataclass(frozen=True, slots=True)
class Setting:
    """A run that something happens to. value: what a number becomes."""

    policy: str
    method: str
    accumulation: int
    value: float

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.value}, {self.policy}, {self.method}, accumulation {self.accumulation}"


@dataclass(frozen=True)
class Bench:
    """Where the cases run, and what they are compared with, made once for each."""

    workdir: Path
    model: Path
    references: dict[tuple[Any, ...], Ran] = field(default_factory=dict)

    def plan(self, setting: Setting, output: str, **changes: Any) -> TrainingPlan:
        """Eight steps, saved after every second."""
        adapter = None if setting.method == "full" else {}
        batch = {"accumulation_steps": setting.accumulation, "total_steps": NUM_STEPS}
        model = changes.pop("model", self.model)
        plan = tiny_plan(
            model,
            self.workdir / output,
            num_rows=NUM_ROWS,
            adapter=adapter,
            batch=batch,
            optimizer=changes.pop("optimizer", {}),
            evaluation={"every": Every(3)},
            saving={"every": Every(2), "total_limit": 3},
            on_nonfinite=setting.policy,
        )
        return replace(plan, **changes)

    def reference(self, setting: Setting, left_out: Sequence[int] = ()) -> Ran:
        """The run to which nothing happens, but that the optimizer's step is left out at some."""
        key = (setting.method, setting.accumulation, *left_out)
        if key not in self.references:
            plan = self.plan(setting, f"reference-{len(self.references)}")
            with optimizer_steps(before=lambda step, _: step not in left_out):
                self.references[key] = run_plan(plan, data=rows_of_two_files())
        return self.references[key]

    def steps_with(self, setting: Setting, row: int) -> list[int]:
        """The steps that train on a row."""
        order = DataOrder(NUM_ROWS, self.plan(setting, "unused").batch, 42)
        return [step for step in range(1, NUM_STEPS + 1) if row in order.step(step).rows]


def rows_of_two_files() -> PreparedData:
    """The evaluation rows have a name of their own, so that a message shows which are meant."""
    return tiny_data(NUM_ROWS, eval_name="held.jsonl")


# Where numbers go wrong.


class Poison:
    """Makes numbers of one conversation non-finite, wherever it is packed.

    where: loss, logits, label (its logit only), gradient (of the logits), or parameter (the
    gradient of one); matches: whether a conversation's tokens are the ones; times: how often at
    most.
    """

    def __init__(
        self,
        where: str,
        value: float,
        matches: Callable[[list[int]], bool],
        times: float = math.inf,
    ) -> None:
        self.armed = True
        self._where, self._value, self._matches, self._left = where, value, matches, times
        self._hit: Tensor | None = None
        self._hooked = False

    @contextmanager
    def inside(self, module: Any) -> Iterator[None]:
        """Patch the two functions as the module names them."""
        logits, losses = module.label_logits, module.token_losses
        with (
            patch.object(module, "label_logits", partial(self._logits, logits)),
            patch.object(module, "token_losses", partial(self._losses, losses)),
        ):
            yield

    def _logits(self, real: Callable[..., Tensor], model: Any, row: PackedRow, **named: Any) -> Any:
        logits = real(model, row, **named)
        self._hit = self._labels_hit(row)
        if self._where == "parameter" and not self._hooked:
            last = [p for p in model.parameters() if p.requires_grad][-1]
            last.register_hook(
                lambda g: g if self._hit is None else torch.full_like(g, self._value)
            )
            self._hooked = True
        if self._hit is None:
            return logits
        rows = self._hit[:, None]
        if self._where == "logits":
            # Added, so that the gradients of what it was made from are spoilt as well.
            return logits + torch.zeros_like(logits).masked_fill(rows, self._value)
        if self._where == "label":
            chosen = torch.nn.functional.one_hot(row.labels, logits.shape[-1]).bool()
            return logits + torch.zeros_like(logits).masked_fill(rows & chosen, -math.inf)
        if self._where == "gradient":
            logits.register_hook(lambda g: g.masked_fill(rows, self._value))
        return logits

    def _spoil_parameter(self, gradient: Tensor) -> Tensor:
        return gradient if self._hit is None else torch.full_like(gradient, self._value)

    def _losses(self, real: Callable[..., Tensor], *given: Any, **named: Any) -> Tensor:
        losses = real(*given, **named)
        if self._where != "loss" or self._hit is None:
            return losses
        return losses.masked_fill(self._hit, self._value)

    def _labels_hit(self, row: PackedRow) -> Tensor | None:
        """Which labels of a packed row belong to the conversation; None: it is not in it."""
        ids = row.input_ids[0].tolist()
        prefix = ids[: row.prefix_length]
        hits = [self._matches(prefix + ids[start:end]) for start, end in row.documents]
        if not self.armed or not any(hits) or self._left <= 0:
            return None
        self._left -= 1
        return torch.repeat_interleave(torch.tensor(hits), torch.tensor(row.label_counts))


@contextmanager
def optimizer_steps(
    before: Callable[[int, Any], bool] = lambda step, optimizer: True,
    after: Callable[[int, Any], None] = lambda step, optimizer: None,
) -> Iterator[None]:
    """AdamW whose step is left out where `before` says False; both get the number of the call."""
    real = torch.optim.AdamW.step
    calls = 0

    def step(optimizer: Any, *given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if before(calls, optimizer):
            real(optimizer, *given, **named)
        after(calls, optimizer)

    with patch.object(torch.optim.AdamW, "step", step):
        yield


# What must hold.


def non_finite_files(directory: Path) -> list[str]:
    """Weight and optimizer files below a directory that hold a NaN or an Infinity, a line each."""
    return [
        f"{file.relative_to(directory)} is not finite"
        for file in sorted(directory.rglob("*.safetensors"))
        if not all(bool(torch.isfinite(t).all()) for t in load_file(file).values())
    ]


def silent_losses(events: Sequence[Event]) -> list[str]:
    """Step events that tell nothing, without a `nonfinite` event that says why."""
    told = {e.step for e in events if isinstance(e, NonFiniteEvent)}
    return [
        f"step {e.step} logs a loss of {e.loss}"
        for e in events
        if isinstance(e, StepEvent)
        and (e.loss == 0.0 or (not math.isfinite(e.loss) and e.step not in told))
    ]


def bad_best(events: Sequence[Event]) -> list[str]:
    """Evaluations that are called best without being a number."""
    return [
        f"the evaluation of step {e.step} is best with {e.eval_loss}"
        for e in events
        if isinstance(e, EvalEvent) and e.best and not math.isfinite(e.eval_loss)
    ]


@dataclass(frozen=True)
class Ended:
    """How a run ended under a fault. error None: completed."""

    plan: TrainingPlan
    ran: Ran | None
    error: Exception | None
    events: Sequence[Event]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The rows that each `nonfinite` event names."""
        return [e.rows for e in self.events if isinstance(e, NonFiniteEvent)]

    def always(self) -> list[str]:
        """What is wrong however it ended."""
        found = non_finite_files(self.plan.output_dir) + silent_losses(self.events)
        found += bad_best(self.events)
        status = json.loads((self.plan.output_dir / "run.json").read_bytes())["status"]
        wanted = "completed" if self.error is None else "failed"
        found += [] if status == wanted else [f"run.json says {status}"]
        if self.error is not None and not isinstance(self.error, RunError):
            found.append(f"it raised {self.error!r}")
        return found

    def stopped_naming(self, rows: set[str]) -> list[str]:
        """What is wrong with a run that had to stop because of these rows."""
        if not isinstance(self.error, RunError):
            return [f"it did not stop: {self.error}"]
        named = set(re.findall(r"\w+\.jsonl:\d+", self.error.render()))
        found = [] if named == rows else [f"the error names {sorted(named)}, not {sorted(rows)}"]
        said = [set(r) for r in self.rows]
        return found + ([] if said == [rows] else [f"the events name {said}"])


def run_under(
    plan: TrainingPlan,
    fault: AbstractContextManager[Any],
    *,
    data: PreparedData | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Ended:
    """Train with something going wrong."""
    ran, error = None, None
    with fault:
        try:
            ran = run_plan(plan, data=data or rows_of_two_files(), on_event=on_event)
        except Exception as failed:
            error = failed
    return Ended(plan, ran, error, read_events(plan.output_dir / "metrics.jsonl"))


def _resumes(bench: Bench, setting: Setting, ended: Ended) -> list[str]:
    """A run that stopped goes on, once nothing goes wrong any more, and ends as the reference."""
    try:
        ran = run_plan(ended.plan, data=rows_of_two_files(), resume=True)
    except LlamafarmError as error:
        return [f"it cannot be resumed: {error}"]
    same = ran.weights_hash == bench.reference(setting).weights_hash
    return [] if same else ["resumed, it ends with other weights"]


# Kinds of faults: each returns what it did, and what was wrong with the outcome.

Outcome = tuple[str, list[str]]
Fault = Callable[[Bench, Setting, str, random.Random], Outcome]


def _in_a_step(where: str, *, once: bool = False) -> Fault:
    """A number of one conversation, always or only the first time."""

    def fault(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
        row = rng.randrange(NUM_ROWS)
        data = rows_of_two_files()
        ids = data.train.input_ids(row).tolist()
        poison = Poison(where, setting.value, lambda tokens: tokens == ids, 1 if once else math.inf)
        plan = bench.plan(setting, output)
        ended = run_under(plan, poison.inside(gradients), data=data)
        steps = bench.steps_with(setting, row)[: 1 if once else None]
        # What does not happen again cannot be told apart: then all rows of the step are named.
        suspects = DataOrder(NUM_ROWS, plan.batch, 42).step(steps[0]).rows if once else (row,)
        named = {str(data.train.source(index)) for index in suspects}
        what = f"{where} of row {row + 1}{', once' if once else ''}"
        found = ended.always()
        if setting.policy == "stop":
            found += ended.stopped_naming(named) or _resumes(bench, setting, ended)
        else:
            found += _left_out(ended, bench.reference(setting, steps), steps, named)
        return what, found

    return fault


def _left_out(ended: Ended, reference: Ran, steps: list[int], named: set[str]) -> list[str]:
    """What is wrong with a run that had to go on without the updates of some steps."""
    if ended.ran is None:
        return [f"it stopped: {ended.error}"]
    told = [e.step for e in ended.events if isinstance(e, NonFiniteEvent)]
    found = [] if told == steps else [f"told of the steps {told}, not {steps}"]
    found += [f"a step names {set(rows)}" for rows in ended.rows if set(rows) != named]
    counted = _last_state(ended)["nonfinite_steps"]
    found += [] if counted == len(steps) else [f"{counted} steps are counted, not {len(steps)}"]
    if ended.ran.weights_hash != reference.weights_hash:
        found.append("the weights are not those of a run without these updates")
    return found


def _last_state(ended: Ended) -> dict[str, Any]:
    last = list_checkpoints(ended.plan.output_dir / "checkpoints")[-1]
    state: dict[str, Any] = json.loads((last.path / "trainer_state.json").read_bytes())["loop"]
    return state


def _evaluation(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """One row of one evaluation: of the base, or a later one."""
    number = rng.choice((0, 1, 2, 3))
    data = rows_of_two_files()
    assert data.eval is not None
    row = rng.randrange(len(data.eval))
    ids = data.eval.input_ids(row).tolist()
    poison = Poison(rng.choice(("loss", "logits")), setting.value, lambda tokens: tokens == ids)
    poison.armed = number == 0
    done = 0

    def count(event: Event) -> None:
        nonlocal done
        done += isinstance(event, EvalEvent)
        poison.armed = done == number

    plan = bench.plan(setting, output)
    ended = run_under(plan, poison.inside(evaluation), data=data, on_event=count)
    found = ended.always()
    if setting.policy == "stop":
        found += ended.stopped_naming({f"held.jsonl:{row + 1}"}) or _resumes(bench, setting, ended)
    elif ended.ran is None:
        found.append(f"it stopped: {ended.error}")
    else:
        results = {e.step: e.eval_loss for e in ended.events if isinstance(e, EvalEvent)}
        usable = {step: loss for step, loss in results.items() if step and math.isfinite(loss)}
        best = min(usable, key=lambda step: usable[step])
        if ended.ran.summary.best_step != best:
            found.append(f"best is {ended.ran.summary.best_step}, not {best}")
        if len(ended.rows) != 1 or math.isfinite(list(results.values())[number]):
            found.append(f"evaluation {number} was not told of: {ended.rows}")
        found += _last_weights_differ(ended, bench.reference(setting))
    return f"evaluation {number}, row {row + 1}", found


def _last_weights_differ(ended: Ended, reference: Ran) -> list[str]:
    last = list_checkpoints(ended.plan.output_dir / "checkpoints")[-1].path
    file = next(last.glob("*model.safetensors"))
    other = reference.directory.checkpoints / last.name / file.name
    return [] if file.read_bytes() == other.read_bytes() else ["the training was changed"]


def _base_weight(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """One number of the base model's file, through which every token passes."""
    name = rng.choice(("model.norm.weight", "model.layers.1.mlp.down_proj.weight"))
    model = bench.workdir / f"{output}-base"
    write_tiny_model(model)
    _change_weights(model, {name: (0, setting.value)})
    ended = run_under(bench.plan(setting, output, model=model), ExitStack())
    found = ended.always()
    # No row is trained, so skipping them all ends the run too.
    if ended.error is None:
        found.append("it did not stop")
    return f"{name}[0] of the base", found


def _base_token(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """The embedding of a token that only one row holds."""
    model, clean = bench.workdir / f"{output}-base", bench.workdir / f"{output}-clean"
    for directory in (model, clean):
        write_tiny_model(directory, tie_word_embeddings=False)
    _change_weights(model, {"model.embed_tokens.weight": (_MARK, setting.value)})
    row = rng.randrange(NUM_ROWS)
    data = _ending_in_mark(row)
    ended = run_under(bench.plan(setting, output, model=model), ExitStack(), data=data)
    found = ended.always()
    named = {str(data.train.source(row))}
    if setting.method == "full":
        # What is not finite is trained, and would be saved.
        found += [] if isinstance(ended.error, RunError) else ["it did not stop"]
    elif setting.policy == "stop":
        found += ended.stopped_naming(named)
    else:
        steps = bench.steps_with(setting, row)
        plan = bench.plan(setting, f"{output}-reference", model=clean)
        with optimizer_steps(before=lambda step, _: step not in steps):
            reference = run_plan(plan, data=data)
        found += _left_out(ended, reference, steps, named)
    return f"embedding of a token of row {row + 1}", found


def _ending_in_mark(row: int) -> PreparedData:
    """The mark is read as well as predicted: it is the last two tokens of the row."""
    data = rows_of_two_files()
    data.train.input_ids(row)[-2:] = _MARK
    return data


def _change_weights(model: Path, changes: dict[str, tuple[int, float]]) -> None:
    """Set a row of some tensors of a model's file."""
    file = model / "model.safetensors"
    state = load_file(file)
    for name, (row, value) in changes.items():
        state[name][row] = value
    save_file(state, file, metadata={"format": "pt"})


def _learning_rate(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """Weights that overflow although every gradient is finite."""
    name = rng.choice(("sgd", "adamw_torch"))
    optimizer = {
        "name": name,
        "learning_rate": 1e38,
        "scheduler": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 0.0,
    }
    ended = run_under(bench.plan(setting, output, optimizer=optimizer), ExitStack())
    found = ended.always()
    if setting.policy == "stop" and ended.error is None:
        found.append("it did not stop")
    if ended.error is not None and "learning rate" not in str(ended.error):
        found.append(f"the learning rate is not named: {ended.error}")
    return f"a learning rate of 1e38 with {name}", found


def _optimizer_state(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """An average of the optimizer: what it does to the weights is seen a step later, or never."""
    entry, step = rng.choice(("exp_avg", "exp_avg_sq")), rng.randrange(1, NUM_STEPS)

    def spoil(number: int, optimizer: Any) -> None:
        if number == step:
            first = next(iter(optimizer.state.values()))
            first[entry].view(-1)[0] = setting.value

    ended = run_under(bench.plan(setting, output), optimizer_steps(after=spoil))
    found = ended.always()
    if isinstance(ended.error, RunError):
        found += _resumes(bench, setting, ended)
    else:
        found.append(f"it did not stop: {ended.error}")
    return f"{entry} after step {step}", found


def command_line(workdir: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code of `llamafarm` and what it said, in this process."""
    from llamafarm.cli.main import main

    said = io.StringIO()
    cache = {"LLAMAFARM_CACHE": str(workdir / "cache")}
    with patch.dict(os.environ, cache), redirect_stderr(said), redirect_stdout(io.StringIO()):
        code = main(arguments)
    return code, said.getvalue()


def _dataset(bench: Bench, output: str, rows: list[str]) -> Path:
    file = bench.workdir / f"{output}.jsonl"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def _data(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """JSON has no NaN, Python's reader has: in a number, or in the place of a text."""
    place = rng.randrange(20)
    number = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(setting.value)]
    turn = '{{"messages": [{{"role": "user", "content": {0}}}, {1}]}}'
    answer = '{{"role": "assistant", "content": "w{0} w2 w3", "weight": {1}}}'
    rows = [turn.format(f'"w{i + 7} w1"', answer.format(i + 9, 1)) for i in range(20)]
    in_weight = rng.random() < 0.5
    text, weight = ('"w1 w9"', number) if in_weight else (number, 1)
    rows[place] = turn.format(text, answer.format(1, weight))
    file = _dataset(bench, output, rows)
    code, said = command_line(bench.workdir, _train(bench, setting, output, file, bench.model))
    found = [] if code == EXIT_USER else [f"exit code {code}"]
    found += [] if f"{file.name}:{place + 1}" in said else [f"line {place + 1} is not named"]
    found += ["Traceback"] if "Traceback" in said else []
    where = "the weight of a turn" if in_weight else "a text"
    return f"{number} for {where}, line {place + 1}", found + ([said[-300:]] if found else [])


def _train(bench: Bench, setting: Setting, output: str, file: Path, model: Path) -> tuple[str, ...]:
    values = {
        "max_steps": NUM_STEPS,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": setting.accumulation,
        "on_nonfinite": setting.policy,
        "method.type": setting.method,
    }
    flags = [flag for key, value in values.items() for flag in ("--set", f"{key}={value}")]
    run = str(bench.workdir / output)
    return ("train", "--dataset", str(file), "--base-model", str(model), "--output", run, *flags)


def _whole_command(bench: Bench, setting: Setting, output: str, rng: random.Random) -> Outcome:
    """The loss of one row, through the command: its exit code, and what a person reads."""
    place = rng.randrange(20)
    rows = [
        json.dumps({"question": f"w{i + 7} w1 w2", "answer": f"w{i + 40} w{i + 80} w9"})
        for i in range(30)
    ]
    rows[place] = json.dumps({"question": "w1 w2", "answer": f"w{_MARK - 3} w9"})
    file = _dataset(bench, output, rows[:20])
    held = _dataset(bench, f"{output}-held", rows[20:])
    poison = Poison("loss", setting.value, lambda tokens: _MARK in tokens)
    arguments = (*_train(bench, setting, output, file, bench.model), "--eval-dataset", str(held))
    with poison.inside(gradients):
        code, said = command_line(bench.workdir, arguments)
    events = read_events(bench.workdir / output / "metrics.jsonl")
    refused = [e for e in events if isinstance(e, NonFiniteEvent)]
    found = non_finite_files(bench.workdir / output) + silent_losses(events)
    name = f"{file.name}:{place + 1}"
    wanted = EXIT_RUN_FAILED if setting.policy == "stop" else 0
    found += [] if code == wanted else [f"exit code {code}, not {wanted}"]
    found += [] if refused else ["no step was refused"]
    found += [f"rows {e.rows}" for e in refused if [Path(row).name for row in e.rows] != [name]]
    if wanted:
        found += [] if name in said and "hint:" in said else ["the row is not named"]
    found += ["Traceback"] if "Traceback" in said else []
    what = f"llamafarm train, line {place + 1} ({len(refused)} steps)"
    return what, found + ([said[-400:]] if found else [])


FAULTS: tuple[Fault, ...] = (
    _in_a_step("loss"),
    _in_a_step("loss", once=True),
    _in_a_step("logits"),
    _in_a_step("label"),
    _in_a_step("gradient"),
    _in_a_step("parameter"),
    _in_a_step("parameter", once=True),
    _evaluation,
    _evaluation,
    _base_weight,
    _base_token,
    _learning_rate,
    _optimizer_state,
    _data,
    _whole_command,
)


def run_case(number: int, bench: Bench) -> Case:
    """One fault; both policies, both methods and both accumulations meet every kind in turn."""
    turn, kind = divmod(number, len(FAULTS))
    rng = chance_of("nonfinite", number)
    setting = Setting(
        policy=("stop", "skip")[(kind + turn) % 2],
        method=("lora", "full")[(kind // 2 + turn // 2) % 2],
        accumulation=(1, 2)[(kind // 4 + turn // 4) % 2],
        value=_VALUES[(kind + turn) % 3],
    )
    what, found = FAULTS[kind](bench, setting, f"case-{number}", rng)
    return Case(f"{number}: {what}: {setting.name}", not found, "; ".join(found))


def number_cases(workdir: Path, form: Form) -> Iterator[Case]:
    """Every kind of fault in turn."""
    bench = Bench(workdir, write_tiny_model(workdir / "model"))
    numbers = range(SHORT_CASES if form == "short" else LONG_CASES)
    yield from one_at_a_time(partial(run_case, number, bench) for number in numbers)


ROW = Row(
    key="nonfinite",
    fault="NaN or Infinity in a loss, gradient, logit, evaluation, weight, optimizer entry or row",
    passes_when="all that is saved is finite, the row is named, it stops or goes on as asked",
    cases=number_cases,
)
