"""Events of runs that never were, for tests of single rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llamafarm.monitoring.diagnosis import diagnose
from llamafarm.monitoring.events import (
    EndEvent,
    EvalEvent,
    Event,
    FindingEvent,
    SettingsEvent,
    StepEvent,
)

STEPS_PER_EPOCH = 10

SETTINGS = SettingsEvent(
    method="lora",
    rank=8,
    alpha=16.0,
    dropout=0.05,
    total_parameters=1_000_000_000,
    trainable_parameters=1_000_000,
    learning_rate=1e-4,
    scheduler="constant",
    warmup_steps=3,
    weight_decay=0.01,
    max_grad_norm=1.0,
    num_epochs=4.0,
    total_steps=40,
    steps_per_epoch=STEPS_PER_EPOCH,
    micro_batch_size=4,
    accumulation_steps=2,
    num_workers=0,
    gradient_checkpointing=False,
    patience=0,
    train_rows=80,
    eval_rows=20,
    guide_learning_rate_low=5e-5,
    guide_learning_rate_high=1e-4,
    guide_epochs_high=5.0,
)


def settings(**changes: Any) -> SettingsEvent:
    return replace(SETTINGS, **changes)


def step(number: int, loss: float, **changes: Any) -> StepEvent:
    event = StepEvent(
        step=number,
        epoch=number / STEPS_PER_EPOCH,
        loss=loss,
        learning_rate=SETTINGS.learning_rate,
        grad_norm=0.5,
        tokens=200 * number,
        trained_tokens=100 * number,
        tokens_per_second=100.0,
        seconds=2.0 * number,
        step_seconds=2.0,
        data_seconds=0.01,
        memory_bytes=1 << 30,
    )
    return replace(event, **changes)


def evaluations(
    losses: Mapping[int, float], *, error: float | None = 0.01, rows: int = 20
) -> dict[int, EvalEvent]:
    """With what the loop says of each: whether it is the best, and the change since the best."""
    made: dict[int, EvalEvent] = {}
    base, best = losses.get(0), math.inf
    for number, loss in losses.items():
        before = best if math.isfinite(best) else base
        made[number] = EvalEvent(
            step=number,
            epoch=number / STEPS_PER_EPOCH,
            eval_loss=loss,
            perplexity=math.exp(min(loss, 700.0)),
            accuracy=0.5,
            rows=rows,
            trained_tokens=400,
            seconds=1.0,
            best=number > 0 and loss < best,
            metrics={},
            standard_error=0.1,
            change=None if before is None or not number else loss - before,
            change_standard_error=error if number else None,
        )
        if number and loss < best:
            best = loss
    return made


def end(last: int, status: str = "completed") -> EndEvent:
    return EndEvent(status=status, step=last, best_step=last, seconds=100.0)


def events(
    train: Sequence[float] | Callable[[int], float],
    evals: Mapping[int, float],
    *,
    told: SettingsEvent = SETTINGS,
    error: float | None = 0.01,
    rows: int = 20,
    status: str = "completed",
    **of_steps: Any,
) -> list[Event]:
    """A whole run: settings, steps with these training losses, evaluations after these steps."""
    losses = [train(n) for n in range(1, told.total_steps + 1)] if callable(train) else list(train)
    at = evaluations(evals, error=error, rows=rows)
    run: list[Event] = [told, *([at[0]] if 0 in at else [])]
    for number, loss in enumerate(losses, start=1):
        run.append(step(number, loss, **{"learning_rate": told.learning_rate, **of_steps}))
        run += [at[number]] if number in at else []
    return [*run, end(len(losses), status)]


def rules(run: Sequence[Event]) -> set[str]:
    return {finding.rule for finding in diagnose(run)}


def finding(run: Sequence[Event], rule: str) -> FindingEvent:
    """The one of that rule."""
    (found,) = [finding for finding in diagnose(run) if finding.rule == rule]
    return found


def wave(number: int, size: float = 0.05) -> float:
    """Noise that is the same every time, with mean 0."""
    return size * (-1, 0.4, 1, -0.7, 0.3)[number % 5]


def falling(start: float = 2.4, by: float = 0.015) -> Callable[[int], float]:
    """A training loss that goes down as it should."""
    return lambda number: start - by * number + wave(number)


HEALTHY_EVALS = {0: 2.4, 10: 2.2, 20: 2.05, 30: 1.95, 40: 1.9}


def healthy(**changes: Any) -> list[Event]:
    return events(falling(), HEALTHY_EVALS, **changes)
