"""Settings whose parts are not in this version: each one that was written is named."""

from __future__ import annotations

from collections.abc import Iterator

from llamafarm.decision import Decision
from llamafarm.planning.explain import notice, shown, warning, whereabouts
from llamafarm.strategy.model import Strategy

_OTHER = (
    "training_args.push_to_hub",
    "training_args.hub_model_id",
    "training_args.hub_private_repo",
    "training_args.hub_revision",
    "training_args.ddp_find_unused_parameters",
    "distributed",
)


def not_in_this_version(strategy: Strategy) -> tuple[Decision, ...]:
    """A warning for each such setting, and a notice for the test set, which nothing measures
    yet.
    """
    return (*_switches(strategy), *_notices(strategy))


def _switches(strategy: Strategy) -> Iterator[Decision]:
    for path in _OTHER:
        value = _value(strategy, path)
        if value:
            text = f"{whereabouts(strategy, path)} has no effect: this version does not do it"
            yield warning(path, value, text)


def _notices(strategy: Strategy) -> Iterator[Decision]:
    path = "dataset.test_file"
    if strategy.dataset.test_file is not None:
        text = f"{path} is kept apart; `llamafarm evaluate RUN --dataset FILE` measures on it"
        yield notice(path, strategy.dataset.test_file, text)
    path = "monitoring.track_training_metrics"
    if not strategy.monitoring.track_training_metrics:
        text = f"{whereabouts(strategy, path)} has no effect: metrics.jsonl is always written"
        yield notice(path, shown(False), text)
    path = "training_args.resume_from_checkpoint"
    resume = strategy.training_args.resume_from_checkpoint
    if isinstance(resume, str):
        text = f"{whereabouts(strategy, path)} means --resume: the newest intact checkpoint is used"
        yield notice(path, resume, text)


def _value(strategy: Strategy, path: str) -> object:
    value: object = strategy
    for name in path.split("."):
        value = getattr(value, name)
    return value
