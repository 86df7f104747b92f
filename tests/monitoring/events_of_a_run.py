"""Events as a run sends them, for tests."""

from __future__ import annotations

import math

from llamafarm.monitoring.events import (
    EndEvent,
    EvalEvent,
    EvalProgressEvent,
    Event,
    FindingEvent,
    StartEvent,
    StepEvent,
)


def start_event(step: int = 0, total_steps: int = 12, planned_evaluations: int = 0) -> StartEvent:
    return StartEvent(
        step=step,
        total_steps=total_steps,
        train_rows=96,
        eval_rows=10,
        trainable_parameters=460_800,
        device="cpu",
        packed=True,
        planned_evaluations=planned_evaluations,
    )


def step_event(step: int, loss: float = 2.0, *, tokens_a_step: int = 200) -> StepEvent:
    return StepEvent(
        step=step,
        epoch=step / 12,
        loss=loss,
        learning_rate=1e-3,
        grad_norm=0.5,
        tokens=tokens_a_step * step,
        trained_tokens=tokens_a_step // 2 * step,
        tokens_per_second=100.0,
        seconds=2.0 * step,
    )


def eval_event(
    step: int, loss: float, *, best: bool = False, seconds: float = 5.0, **metrics: float
) -> EvalEvent:
    return EvalEvent(
        step=step,
        epoch=step / 12,
        eval_loss=loss,
        perplexity=math.exp(loss),
        accuracy=0.5,
        rows=10,
        trained_tokens=700,
        seconds=seconds,
        best=best,
        metrics=metrics,
    )


def eval_progress_event(rows_done: int, step: int = 4) -> EvalProgressEvent:
    return EvalProgressEvent(step=step, rows_done=rows_done, rows=10)


def end_event(step: int = 12, best_step: int = 8, status: str = "completed") -> EndEvent:
    return EndEvent(
        status=status,
        step=step,
        best_step=best_step,
        seconds=61.0,
        peak_memory_bytes=3 * 1024**3 // 2,
    )


def events_of_a_run() -> list[Event]:
    """Twelve steps, evaluated before the first and every four; step 8 is the best."""
    steps = [step_event(step, 2.2 - 0.05 * step) for step in range(1, 13)]
    return [
        start_event(planned_evaluations=4),
        eval_event(0, 2.231, best=True),
        *steps[:4],
        eval_event(4, 2.0, best=True),
        *steps[4:8],
        eval_event(8, 1.839, best=True),
        *steps[8:],
        eval_event(12, 1.85),
        end_event(),
    ]


def overfitting_event() -> FindingEvent:
    return FindingEvent(
        step=12,
        rule="overfitting",
        text="the eval loss rose from 1.839 at step 8 to 2.104 while training went to 0.912",
        confidence=0.999,
        numbers={"best_step": 8.0, "rise": 0.265},
        advice="stop at step 8, add dropout, or bring more rows",
        patch={"training_args.max_steps": 8, "method.dropout": 0.1},
    )
