"""What a run that is gone on with keeps from when it began."""

from __future__ import annotations

from pathlib import Path

from llamafarm.errors import StrategyError
from llamafarm.planning.explain import is_written
from llamafarm.strategy.loader import load_strategy
from llamafarm.strategy.model import Strategy

# Planned by the memory that was free then. Another layout of the same rows rounds otherwise.
_BY_FREE_MEMORY = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
)


def as_begun(strategy: Strategy, resolved_file: Path) -> Strategy:
    """The strategy with what free memory decided when the run began, where nobody wrote it.

    resolved_file: `strategy.yaml` of the run. Where it cannot be read, nothing is taken from it.
    """
    try:
        begun = load_strategy(resolved_file, None, environ={})
    except StrategyError:
        return strategy
    names = [n for n in _BY_FREE_MEMORY if not is_written(strategy, f"training_args.{n}")]
    values = {name: getattr(begun.training_args, name) for name in names}
    origins = {f"training_args.{n}": begun.origin(f"training_args.{n}") for n in names}
    return strategy.model_copy(
        update={
            "training_args": strategy.training_args.model_copy(update=values),
            "origins": {**strategy.origins, **{p: o for p, o in origins.items() if o is not None}},
        }
    )
