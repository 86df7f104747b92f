"""Both fine-tuners on one strategy, before any step: what each feeds the model, at which learning
rates, what it trains, and the loss it starts from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.data.tokenized import PreparedData, TokenRows
from llamafarm.errors import RunError, count_of, listed
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.planning.plan import TrainingPlan
from llamafarm.training.backends.llamafactory.environment import Environment
from llamafarm.training.backends.llamafactory.process import Said, TrainerProcess
from llamafarm.training.backends.llamafactory.translate import EVAL, TRAIN
from llamafarm.training.backends.llamafactory.workplace import (
    JOB,
    Workplace,
    fill_workplace,
    sides_of,
)

LOSS_TOLERANCE = 1e-3
"""Nats a token. The engines pad and add up differently, so that their sums are not bitwise."""
_RATE_TOLERANCE = 1e-6
# Rows whose tokens are compared, and whose loss is, where there are no evaluation rows.
ROWS_COMPARED, ROWS_MEASURED = 2000, 32
_ROWS_NAMED = 5
_HEARTBEAT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing. note: what is different, or how close it is."""

    name: str
    pytorch: str
    llamafactory: str
    same: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """One side. ids, labels: of the compared rows, by side; labels are -100 where nothing is
    trained; rates: of each step.
    """

    effective_batch_size: int
    total_steps: int
    trainable_parameters: int
    optimizer: str
    weight_decays: tuple[float, ...]
    dtype: str
    rates: tuple[float, ...]
    start: LossResult
    ids: dict[str, list[list[int]]]
    labels: dict[str, list[list[int]]]


def ask_llamafactory(
    environment: Environment,
    plan: TrainingPlan,
    data: PreparedData,
    tokenizer: Any,
    work: Callable[[str, int, int], None],
) -> Engine:
    """Start its trainer, hear what it would do, and end it before its first step. Raises
    RunError.
    """
    sides = sides_of(data, has_eval=data.eval is not None)
    rows = sum(min(len(side), ROWS_COMPARED) for side in sides.values())
    with tempfile.TemporaryDirectory(prefix="llamafarm-compare-") as name:
        place = Workplace(Path(name))
        place.clear()
        fill_workplace(place, plan, tokenizer, sides)
        place.write_job(
            mode="compare",
            threads=plan.device.threads,
            pairs=False,
            eval_batch_size=plan.batch.eval_batch_size,
            tokens=0,
            trained_tokens=0,
            rows_compared=ROWS_COMPARED,
            rows_measured=ROWS_MEASURED,
        )
        told: dict[str, Said] = {}
        ids: dict[str, list[list[int]]] = {side: [] for side in sides}
        labels: dict[str, list[list[int]]] = {side: [] for side in sides}
        with TrainerProcess(
            environment, place.root, place.root / JOB, place.log, device=plan.device.device
        ) as process:
            done = 0
            for said in _sentences(process):
                if said.sentence == "row":
                    ids[said.text("side")].append(list(said.wholes("ids")))
                    labels[said.text("side")].append(list(said.wholes("labels")))
                    done += 1
                    work("comparing rows", done, rows)
                elif said.sentence == "evaluating":
                    work("measuring the first loss", said.whole("rows_done"), said.whole("rows"))
                else:
                    told[said.sentence] = said
    if not {"ready", "facts"} <= told.keys():
        raise RunError(
            "LLaMA-Factory ended before it told what it would do",
            hint="`llamafarm train` on the same strategy shows its log",
        )
    ready, facts = told["ready"], told["facts"]
    return Engine(
        effective_batch_size=ready.whole("effective_batch_size"),
        total_steps=ready.whole("total_steps"),
        trainable_parameters=ready.whole("trainable_parameters"),
        optimizer=facts.text("optimizer"),
        weight_decays=facts.numbers("weight_decays"),
        dtype=ready.text("dtype"),
        rates=facts.numbers("learning_rates"),
        start=LossResult.of_rows(facts.part("step_0").row_losses()),
        ids=ids,
        labels=labels,
    )


def _sentences(process: TrainerProcess) -> Iterator[Said]:
    """Until it is over."""
    while True:
        said = process.listen(_HEARTBEAT_SECONDS)
        if said is None:
            continue
        if said.sentence == "over":
            process.answer()
            process.wait(10.0)
            return
        if said.sentence == "ready":
            process.answer(evaluate=False, stop=False)
        yield said


def ask_pytorch(plan: TrainingPlan, data: PreparedData, tokenizer: Any) -> Engine:
    """The same of this project's own engine."""
    import torch

    from llamafarm.evaluation.loss import evaluate_loss
    from llamafarm.training.backends.pytorch.device import new_accelerator
    from llamafarm.training.backends.pytorch.model import build_model
    from llamafarm.training.backends.pytorch.optimizer import make_optimizer, make_scheduler

    torch.set_num_threads(plan.device.threads)
    accelerator = new_accelerator(plan.device)
    torch.manual_seed(plan.seed)
    trainable = build_model(plan, tokenizer)
    optimizer = make_optimizer(plan.optimizer, trainable.model)
    schedule = make_scheduler(plan.optimizer, optimizer, plan.batch.total_steps)
    model, _ = accelerator.prepare(trainable.model, optimizer)
    start = evaluate_loss(
        model,
        data.eval or _First(data.train, ROWS_MEASURED),
        batch_size=plan.batch.eval_batch_size,
        packed=trainable.packability.packed,
        device=accelerator.device,
    )
    sides = {TRAIN: data.train, **({EVAL: data.eval} if data.eval is not None else {})}
    scale, base = schedule.lr_lambdas[0], schedule.base_lrs[0]
    weights = next(trainable.model.parameters())
    return Engine(
        effective_batch_size=plan.batch.effective_batch_size,
        total_steps=plan.batch.total_steps,
        trainable_parameters=sum(
            p.numel() for p in trainable.model.parameters() if p.requires_grad
        ),
        optimizer=type(optimizer).__name__,
        weight_decays=tuple(sorted({float(g["weight_decay"]) for g in optimizer.param_groups})),
        dtype=str(weights.dtype).removeprefix("torch."),
        rates=tuple(float(base * scale(step)) for step in range(plan.batch.total_steps)),
        start=start,
        ids={
            name: [rows.input_ids(i).tolist() for i in _few(rows)] for name, rows in sides.items()
        },
        labels={name: [_labels(rows, i) for i in _few(rows)] for name, rows in sides.items()},
    )


def compare_engines(own: Engine, other: Engine, data: PreparedData) -> tuple[Compared, ...]:
    """Everything, in the order of a training. Pure."""
    found = []
    for name, rows in ((TRAIN, data.train), (EVAL, data.eval)):
        if rows is not None:
            found += _rows(name, own, other, rows)
    found += [
        _equal("rows in a step", own.effective_batch_size, other.effective_batch_size),
        _equal("steps", own.total_steps, other.total_steps),
        _equal("trained parameters", own.trainable_parameters, other.trainable_parameters),
        _equal("type of the weights", own.dtype, other.dtype),
        _equal("optimizer", own.optimizer, other.optimizer),
        _equal("weight decay", own.weight_decays, other.weight_decays),
        _rates(own.rates, other.rates),
        _start(own.start, other.start, data),
    ]
    return tuple(found)


def _rows(name: str, own: Engine, other: Engine, rows: TokenRows) -> list[Compared]:
    whose = "training" if name == TRAIN else "evaluation"
    ids = _sequences(f"{whose} tokens", own.ids[name], other.ids.get(name, []), rows)
    labels = _sequences(f"{whose} labels", own.labels[name], other.labels.get(name, []), rows)
    return [ids, labels]


def _sequences(
    name: str, own: Sequence[list[int]], other: Sequence[list[int]], rows: TokenRows
) -> Compared:
    different = [i for i, row in enumerate(own) if i >= len(other) or other[i] != row]
    note = ""
    if different:
        sources = [str(rows.source(i)) for i in different]
        note = f"{count_of(len(different), 'different row')}: {listed(sources, _ROWS_NAMED)}"
    elif len(own) < len(rows):
        note = f"the first {len(own):,} of {len(rows):,} rows"
    return Compared(
        name,
        f"{count_of(len(own), 'row')}, {sum(map(len, own)):,}",
        f"{count_of(len(other), 'row')}, {sum(map(len, other)):,}",
        not different and len(own) == len(other),
        note,
    )


def _equal(name: str, own: object, other: object) -> Compared:
    return Compared(name, _shown(own), _shown(other), own == other)


def _rates(own: Sequence[float], other: Sequence[float]) -> Compared:
    most = max((abs(a - b) for a, b in zip(own, other, strict=False)), default=0.0)
    same = len(own) == len(other) and most <= _RATE_TOLERANCE * max(own, default=0.0)
    note = f"largest difference {most:.1e}"
    return Compared("learning rate of each step", _span(own), _span(other), same, note)


def _start(own: LossResult, other: LossResult, data: PreparedData) -> Compared:
    if own.by_row.tokens != other.by_row.tokens:
        note = "measured on other tokens"
        return Compared(
            "loss before step 1", f"{own.loss:.6f}", f"{other.loss:.6f}", same=False, note=note
        )
    gaps = [abs(a - b) for a, b in zip(own.by_row.losses, other.by_row.losses, strict=True)]
    rows = data.eval or data.train
    worst = max(range(len(gaps)), key=gaps.__getitem__)
    gap = abs(own.loss - other.loss)
    note = f"difference {gap:.1e}; of one row at most {gaps[worst]:.1e} ({rows.source(worst)})"
    return Compared(
        "loss before step 1",
        f"{own.loss:.6f}",
        f"{other.loss:.6f}",
        gap <= LOSS_TOLERANCE,
        note,
    )


def _span(rates: Sequence[float]) -> str:
    if not rates:
        return "none"
    return f"{rates[0]:.2e}, at most {max(rates):.2e}, {rates[-1]:.2e} at the end"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else f"{value}"


def _few(rows: TokenRows) -> range:
    return range(min(len(rows), ROWS_COMPARED))


def _labels(rows: TokenRows, row: int) -> list[int]:
    pairs = zip(rows.input_ids(row).tolist(), rows.trained(row).tolist(), strict=True)
    return [token if trained else -100 for token, trained in pairs]


class _First:
    """The first rows of a side, as rows."""

    def __init__(self, rows: TokenRows, most: int) -> None:
        self._rows, self._count = rows, min(most, len(rows))
        self.fingerprint = f"{rows.fingerprint}[:{self._count}]"

    def __len__(self) -> int:
        return self._count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)
