"""The numbers of an event by the names under which TensorBoard and the trackers show them."""

from __future__ import annotations

from collections.abc import Mapping

from llamafarm.monitoring.events import EvalEvent, Event, StepEvent

_STEP_FIELDS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "epoch", "memory_bytes")
_EVAL_FIELDS = {"loss": "eval_loss", "perplexity": "perplexity", "accuracy": "accuracy"}


def scalars_of(event: Event) -> Mapping[str, float]:
    """train/loss, train/learning_rate …, eval/loss, eval/perplexity, your metrics; empty for any
    other event.
    """
    if isinstance(event, StepEvent):
        return {f"train/{name}": getattr(event, name) for name in _STEP_FIELDS}
    if isinstance(event, EvalEvent):
        values = {f"eval/{name}": getattr(event, field) for name, field in _EVAL_FIELDS.items()}
        return values | {f"eval/{name}": value for name, value in event.metrics.items()}
    return {}
