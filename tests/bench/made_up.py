"""Runs as engines would report them."""

from __future__ import annotations

from collections.abc import Sequence

from bench.spec import Engine, EngineRun, Step

OURS = Engine("ours", "Ours", "ours")
BASE = Engine("base", "Base", "other")
REGROUPED = Engine("regrouped", "Regrouped", "other", same_steps=False)


def step(
    seconds: float = 2.0,
    tokens: int = 100,
    trained_tokens: int = 40,
    slots: int = 120,
    loss: float = 2.0,
    grad_norm: float = 0.5,
) -> Step:
    return Step(seconds, tokens, trained_tokens, slots, loss, grad_norm)


def run(steps: Sequence[Step], first_loss: float = 2.5, load_average: float = 0.1) -> EngineRun:
    return EngineRun(
        steps=tuple(steps),
        first_loss=first_loss,
        peak_rss_bytes=2 * 1024**3,
        loaded_rss_bytes=1024**3,
        load_average=load_average,
        adapter_directory="adapter",
        versions={"torch": "2.13.0"},
        settings={"max_steps": 3},
    )
