"""From runs to figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from bench.spec import Engine, EngineRun


@dataclass(frozen=True, slots=True)
class Figures:
    """One engine on one data set.

    tokens_per_second: of the conversations as written, over the timed steps, each step at its
    median over the rounds; trained_tokens_per_second: those with a label; slots_per_token:
    positions computed for each token; limit_share: of the matrix-product limit; speed_ratio:
    tokens_per_second against the baseline's; train_loss: of the timed steps; held_out_loss: of the
    saved adapter, by the neutral judge.
    """

    engine: Engine
    step_seconds_median: float
    step_seconds_p90: float
    tokens_per_second: float
    trained_tokens_per_second: float
    slots_per_token: float
    peak_rss_bytes: int
    limit_share: float
    speed_ratio: float
    train_loss: float
    held_out_loss: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All runs on one data set. flops: F_useful of all steps after the warm-up; limit: FLOP/s of
    the best product.
    """

    warmup_steps: int
    runs: Mapping[str, Sequence[EngineRun]]
    held_out: Mapping[str, float]
    flops_per_token: float
    limit: float


def figures(engines: Sequence[Engine], measured: Measured, baseline: str) -> list[Figures]:
    """One line for each engine; speed_ratio is against the engine named `baseline`."""
    reference = tokens_per_second(baseline, measured)
    return [_figures(engine, measured, reference) for engine in engines]


def tokens_per_second(name: str, measured: Measured) -> float:
    """Tokens of an engine's timed steps over their time."""
    steps = measured.runs[name][0].steps[measured.warmup_steps :]
    return sum(step.tokens for step in steps) / sum(step_seconds(name, measured))


def step_seconds(name: str, measured: Measured) -> list[float]:
    """Of every timed step, the median over the rounds; it holds the same rows in each."""
    rounds = [run.steps[measured.warmup_steps :] for run in measured.runs[name]]
    return [median(step.seconds for step in same) for same in zip(*rounds, strict=True)]


def _figures(engine: Engine, measured: Measured, reference: float) -> Figures:
    runs = measured.runs[engine.name]
    steps = runs[0].steps[measured.warmup_steps :]
    speed = tokens_per_second(engine.name, measured)
    seconds = step_seconds(engine.name, measured)
    tokens, trained = sum(s.tokens for s in steps), sum(s.trained_tokens for s in steps)
    every = [step.seconds for run in runs for step in run.steps[measured.warmup_steps :]]
    return Figures(
        engine=engine,
        step_seconds_median=median(every),
        step_seconds_p90=quantiles(every, n=10)[-1] if len(every) > 1 else every[0],
        tokens_per_second=speed,
        trained_tokens_per_second=trained / sum(seconds),
        slots_per_token=sum(s.slots for s in steps) / tokens,
        peak_rss_bytes=max(run.peak_rss_bytes for run in runs),
        limit_share=measured.flops_per_token * speed / measured.limit,
        speed_ratio=speed / reference,
        train_loss=sum(s.loss * s.trained_tokens for s in steps) / trained,
        held_out_loss=measured.held_out[engine.name],
    )
