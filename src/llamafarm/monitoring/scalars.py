"""The numbers of an event by the names under which TensorBoard and the trackers show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamafarm.monitoring.events import EvalEvent, Event, StepEvent

_STEP_FIELDS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "epoch", "memory_bytes")
_EVAL_FIELDS = {"loss": "eval_loss", "perplexity": "perplexity", "accuracy": "accuracy"}


@dataclass(frozen=True, slots=True)
class Scalars:
    """Numbers of one step, by name."""

    step: int
    values: Mapping[str, float]


def scalars_of(event: Event) -> Scalars | None:
    """train/loss, train/learning_rate …, eval/loss, eval/perplexity, your metrics; None for any
    other event.
    """
    if isinstance(event, StepEvent):
        values = {f"train/{name}": getattr(event, name) for name in _STEP_FIELDS}
        return Scalars(event.step, values)
    if isinstance(event, EvalEvent):
        values = {f"eval/{name}": getattr(event, field) for name, field in _EVAL_FIELDS.items()}
        values |= {f"eval/{name}": value for name, value in event.metrics.items()}
        return Scalars(event.step, values)
    return None
