"""One line of text for an event, or none: what a log file holds, and what scrolls above the live
display.
"""

from __future__ import annotations

from llamafarm.errors import count_of, listed
from llamafarm.monitoring.events import (
    BestLostEvent,
    CheckpointEvent,
    EarlyStopEvent,
    EndEvent,
    EvalEvent,
    Event,
    FindingEvent,
    MessageEvent,
    NonFiniteEvent,
    OutOfMemoryEvent,
    ResumeEvent,
    SaveFailedEvent,
    StartEvent,
    StepEvent,
)
from llamafarm.monitoring.formats import (
    format_duration,
    format_gap,
    format_loss,
    format_perplexity,
    format_rate,
)
from llamafarm.monitoring.run_state import RunState

_SEPARATOR = "  "
_ROWS_NAMED = 3


def step_line(event: StepEvent, state: RunState) -> str:
    """`step 12/40  loss 1.834  lr 9.1e-04  182 tok/s  eta 0:41`."""
    left = state.seconds_left
    parts = [
        f"step {event.step}/{state.total_steps or '?'}",
        f"loss {format_loss(event.loss)}",
        f"lr {event.learning_rate:.1e}",
        format_rate(event.tokens_per_second),
        *([] if left is None else [f"eta {format_duration(left)}"]),
    ]
    return _SEPARATOR.join(parts)


def eval_line(event: EvalEvent, state: RunState) -> str:
    """`eval at step 12: loss 1.912 (base 2.231), perplexity 6.77, gap +0.081, best`."""
    loss = f"loss {format_loss(event.eval_loss)}"
    base = state.history.base
    if event.step == 0:
        parts = [loss, f"perplexity {format_perplexity(event.perplexity)}", "the base model"]
    else:
        parts = [
            f"{loss} (base {format_loss(base.eval_loss)})" if base else loss,
            f"perplexity {format_perplexity(event.perplexity)}",
            *([] if state.gap is None else [f"gap {format_gap(state.gap)}"]),
            *(["best"] if event.best else []),
        ]
    parts += [f"{name} {format_loss(value)}" for name, value in event.metrics.items()]
    return f"eval at step {event.step}: {', '.join(parts)}"


def event_line(event: Event, state: RunState) -> str | None:
    """The line of any other event; None where a person need not be told."""
    match event:
        case StartEvent():
            return _start_line(event)
        case StepEvent():
            return step_line(event, state)
        case EvalEvent():
            return eval_line(event, state)
        case CheckpointEvent(reason="interrupted"):
            return f"saved {event.path}"
        case ResumeEvent():
            return _resume_line(event)
        case SaveFailedEvent() | BestLostEvent() | NonFiniteEvent() | OutOfMemoryEvent():
            return f"warning: {trouble_text(event)}"
        case FindingEvent():
            return f"finding: {trouble_text(event)}" + (
                f"; try: {event.advice}" if event.advice else ""
            )
        case EarlyStopEvent(rule=rule) if rule:
            return f"stopping at step {event.step}: {rule}; step {event.best_step} is kept"
        case EarlyStopEvent():
            return (
                f"stopping at step {event.step}: nothing better than step {event.best_step} in "
                f"{count_of(event.evaluations_without_improvement, 'evaluation')}"
            )
        case MessageEvent():
            return event.text if event.level == "info" else f"{event.level}: {event.text}"
        case EndEvent(status="completed"):  # of any other end the error tells
            return f"completed at step {event.step} after {format_duration(event.seconds)}"
    return None


def _start_line(event: StartEvent) -> str:
    return (
        f"training {count_of(event.trainable_parameters, 'parameter')} on {event.device}: "
        f"{count_of(event.train_rows, 'row')}, {count_of(event.total_steps, 'step')}"
        + (f"; {count_of(event.eval_rows, 'row')} for evaluation" if event.eval_rows else "")
    )


def _resume_line(event: ResumeEvent) -> str:
    text = event.note or f"going on after step {event.step}"
    return f"{text} ({event.path})" if event.path else text


def trouble_text(event: Event) -> str | None:
    """What went wrong and what became of it, in one sentence; None for an event of another kind."""
    match event:
        case SaveFailedEvent():
            kept = f"checkpoint-{event.kept_step}" if event.kept_step else "none"
            return (
                f"{event.text}. The run goes on and tries again; the newest checkpoint that is "
                f"there: {kept}"
            )
        case BestLostEvent():
            now = f"step {event.kept_step}" if event.kept_step else "the next one evaluated"
            return (
                f"step {event.lost_step}, the best so far, is lost ({event.text}); the best is now "
                f"{now}"
            )
        case NonFiniteEvent():
            return _nonfinite_text(event)
        case OutOfMemoryEvent():
            tokens = f" ({event.tokens:,} tokens at once)" if event.tokens else ""
            where = {"step": "", "evaluation": "the evaluation after ", "save": "the save after "}
            return (
                f"out of memory in {where.get(event.during, '')}step {event.step}{tokens}: "
                f"{event.action}"
            )
        case FindingEvent():
            return event.text + rows_text(event.rows)
    return None


def _nonfinite_text(event: NonFiniteEvent) -> str:
    skipped = "it cannot be the best" if "evaluation" in event.what else "the step is left out"
    then = {"skip": skipped, "stop": "the run ends"}.get(event.action, event.action)
    return f"step {event.step}: the {event.what} is not finite; {then}{rows_text(event.rows)}"


def rows_text(rows: tuple[str, ...]) -> str:
    """The first of them, in parentheses."""
    return f" (rows {listed(rows, _ROWS_NAMED)})" if rows else ""
