"""Findings about the machine: memory, and time that is not spent on training."""

from __future__ import annotations

import math
import statistics

from llamafarm.errors import count_of
from llamafarm.monitoring.diagnosis import patches
from llamafarm.monitoring.diagnosis.observed import Observed, joined
from llamafarm.monitoring.events import FindingEvent
from llamafarm.monitoring.formats import format_bytes, format_duration

# A run that waits a fifth of its time would be a quarter faster.
_WAITING_SHARE = 0.2
# Less than that altogether, nobody minds.
_WAITING_SECONDS = 5.0
_ENOUGH_STEPS = 8
# The overview's numbers: above 80 % is efficient, below 50 % is slow.
_GOOD_UTILISATION, _LOW_UTILISATION = 80.0, 50.0
# torch's allocator needs room between its blocks; what holds more runs out at the next long row.
_FULL_SHARE = 0.95


def memory_pressure(observed: Observed) -> FindingEvent | None:
    """Memory ran out in a step or an evaluation (and something was made smaller), or more than 95 %
    of an accelerator's memory is held. (A process on a CPU shares its memory with others.)

    Source: the overview's "OOM: decrease batch size or enable checkpointing".
    """
    settings = observed.settings
    if settings is None:
        return None
    shortages = [s for s in observed.shortages if s.during != "save"]
    numbers = {
        "shortages": float(observed.num_shortages if shortages else 0),
        "memory_bytes": float(observed.most_memory_bytes),
        "memory_limit_bytes": float(settings.memory_limit_bytes),
        "micro_batch_size": float(settings.micro_batch_size),
    }
    if shortages:
        last = shortages[-1]
        text = (
            f"memory ran out {count_of(observed.num_shortages, 'time')}, last in step {last.step}: "
            f"{last.action}"
        )
        confidence = 1.0
    elif _is_full(observed, settings.memory_limit_bytes):
        text = (
            f"{format_bytes(observed.most_memory_bytes)} of "
            f"{format_bytes(settings.memory_limit_bytes)} are in use: a longer row may not fit"
        )
        confidence = 0.6
    else:
        return None
    return FindingEvent(
        step=observed.last_step,
        rule="memory_pressure",
        text=text,
        confidence=confidence,
        numbers=numbers,
        advice="fewer rows at once, more accumulation (the update stays the same), or gradient "
        "checkpointing",
        patch=patches.smaller_batch(settings),
    )


def slow_training(observed: Observed) -> FindingEvent | None:
    """Steps wait for their rows for more than a fifth of the time, or the device computes less than
    half of it (NVML).

    Source: the overview's "<50 % GPU usage: increase batch size, optimize data loading".
    """
    settings = observed.settings
    stretches = [s for s in observed.stretches if s.step_seconds > 0]
    whole = joined(stretches)
    if settings is None or whole is None or observed.num_events < _ENOUGH_STEPS:
        return None
    seconds = whole.step_seconds + whole.data_seconds
    shares = [s.data_seconds / (s.step_seconds + s.data_seconds) for s in stretches]
    share = whole.data_seconds / seconds
    # One long wait is no slow feed: the usual step has to wait too.
    waits = statistics.median(shares) > _WAITING_SHARE and share > _WAITING_SHARE
    if waits and whole.data_seconds > _WAITING_SECONDS:
        return FindingEvent(
            step=observed.last_step,
            rule="slow_training",
            text=(
                f"{100 * share:.0f} % of the time steps wait for their rows "
                f"({format_duration(whole.data_seconds)} of {format_duration(seconds)})"
            ),
            confidence=sum(s > _WAITING_SHARE for s in shares) / len(shares),
            numbers={
                "data_share": share,
                "data_seconds": whole.data_seconds,
                "step_seconds": whole.step_seconds,
                "num_workers": float(settings.num_workers),
            },
            advice="let workers prepare rows ahead, and put the data on a faster disk",
            patch=patches.more_workers(settings),
        )
    if observed.utilisation_count < _ENOUGH_STEPS:
        return None
    utilisation = observed.utilisation_sum / observed.utilisation_count
    if utilisation >= _LOW_UTILISATION or whole.step_seconds < _WAITING_SECONDS:
        return None
    return FindingEvent(
        step=observed.last_step,
        rule="slow_training",
        text=(
            f"the device computes {utilisation:.0f} % of the time; above {_GOOD_UTILISATION:.0f} % "
            "is efficient"
        ),
        # NVML's samples are short and few: many of them say more.
        confidence=1 - 1 / math.sqrt(observed.utilisation_count),
        numbers={
            "device_utilisation": utilisation,
            "data_share": share,
            "micro_batch_size": float(settings.micro_batch_size),
        },
        advice=f"more rows at once: {2 * settings.micro_batch_size} instead of "
        f"{settings.micro_batch_size} a micro-batch",
        patch=patches.larger_batch(settings),
    )


def _is_full(observed: Observed, limit: int) -> bool:
    accelerator = observed.device not in ("", "cpu")
    return accelerator and bool(limit) and observed.most_memory_bytes > _FULL_SHARE * limit
