"""Values to try instead, from those of the run and those of the guide's tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llamafarm.monitoring.events import SettingsEvent

Patch = Mapping[str, float | int | str | bool]

RATE = "training_args.learning_rate"
EPOCHS = "training_args.num_train_epochs"
STEPS = "training_args.max_steps"
WARMUP = "training_args.warmup_steps"
BATCH = "training_args.per_device_train_batch_size"
ACCUMULATION = "training_args.gradient_accumulation_steps"
CHECKPOINTING = "training_args.gradient_checkpointing"
WORKERS = "training_args.dataloader_num_workers"
PATIENCE = "training_args.early_stopping_patience"
RANK = "method.r"
ALPHA = "method.alpha"
DROPOUT = "method.dropout"
MODULES = "method.target_modules"

# The ends of the guide's usual values: dropout up to 0.2, warm-up up to a tenth of a run.
_MOST_DROPOUT, _LEAST_USEFUL_DROPOUT = 0.2, 0.1
_MOST_WARMUP = 0.1
_MOST_WORKERS = 8
_MOST_RANK = 64


def guide_rate(settings: SettingsEvent) -> float:
    """The middle of the guide's rates for this model, method and number of rows."""
    low, high = settings.guide_learning_rate_low, settings.guide_learning_rate_high
    return rounded(math.sqrt(low * high))


def lower_rate(settings: SettingsEvent) -> float:
    """The guide's middle where the rate is above it; else a third."""
    middle = guide_rate(settings)
    return middle if settings.learning_rate > middle else rounded(settings.learning_rate / 3)


def higher_rate(settings: SettingsEvent) -> float:
    """The guide's middle where the rate is below it; else its upper end, or three times."""
    rate, middle = settings.learning_rate, guide_rate(settings)
    if rate < middle:
        return middle
    return rounded(max(settings.guide_learning_rate_high, 3 * rate))


def more_rank(settings: SettingsEvent) -> Patch:
    """Twice the rank, at most the guide's 64, at the same scaling alpha / r; nothing where there is
    no adapter, or it is as large already.
    """
    rank = min(2 * settings.rank, _MOST_RANK)
    if rank <= settings.rank:
        return {}
    return {RANK: rank, ALPHA: settings.alpha * rank / settings.rank}


def more_dropout(settings: SettingsEvent) -> Patch:
    """Up to the guide's most; nothing where there is no adapter, or it is there already."""
    if not settings.rank or settings.dropout >= _MOST_DROPOUT:
        return {}
    value = min(_MOST_DROPOUT, max(_LEAST_USEFUL_DROPOUT, 2 * settings.dropout))
    return {DROPOUT: rounded(value)}


def more_warmup(settings: SettingsEvent) -> Patch:
    """The guide's longest, where the run had a shorter one: a fraction of the run."""
    if settings.warmup_steps >= _MOST_WARMUP * settings.total_steps:
        return {}
    return {WARMUP: _MOST_WARMUP}


def ends_after(settings: SettingsEvent, step: int) -> Patch:
    """A run that ends after so many steps: in epochs where those are whole, else in steps."""
    epochs = step / settings.steps_per_epoch if settings.steps_per_epoch else 0.0
    by_epochs = settings.num_epochs == int(settings.num_epochs)
    if by_epochs and epochs >= 1 and epochs == int(epochs):
        return {EPOCHS: int(epochs)}
    return {STEPS: max(1, step)}


def more_epochs(settings: SettingsEvent) -> Patch:
    """Twice as many, but no more than the guide's most; nothing where that is reached. In steps
    where the run was of a number of steps, which then decides.
    """
    epochs = min(2 * settings.num_epochs, settings.guide_epochs_high)
    if epochs <= settings.num_epochs:
        return {}
    if settings.num_epochs != int(settings.num_epochs):
        return {STEPS: math.ceil(epochs * settings.steps_per_epoch)}
    return {EPOCHS: rounded(epochs)}


def smaller_batch(settings: SettingsEvent) -> Patch:
    """Half the rows at once, in twice as many parts, so that the update stays what it is; then
    gradient checkpointing.
    """
    size = settings.micro_batch_size
    if size > 1:
        whole = size * settings.accumulation_steps
        half = size // 2
        return {BATCH: half, ACCUMULATION: math.ceil(whole / half)}
    return {} if settings.gradient_checkpointing else {CHECKPOINTING: True}


def larger_batch(settings: SettingsEvent) -> Patch:
    """Twice the rows at once, in half as many parts where there are any."""
    patch: dict[str, float | int | str | bool] = {BATCH: 2 * settings.micro_batch_size}
    if settings.accumulation_steps > 1:
        patch[ACCUMULATION] = settings.accumulation_steps // 2
    return patch


def more_workers(settings: SettingsEvent) -> Patch:
    """Twice as many, at least 2, at most 8; nothing where that is reached."""
    workers = min(_MOST_WORKERS, max(2, 2 * settings.num_workers))
    return {} if workers <= settings.num_workers else {WORKERS: workers}


def rounded(value: float) -> float:
    """To two digits: what a person would write."""
    return float(f"{value:.1e}")
