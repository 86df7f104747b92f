"""From runs to figures."""

from __future__ import annotations

import pytest
from bench.figures import Measured, figures, step_seconds

from tests.bench.made_up import BASE, OURS, run, step


def measured(ours: list[list[float]], base: list[list[float]]) -> Measured:
    """seconds of each step, one list a round; the first step warms up."""
    return Measured(
        warmup_steps=1,
        runs={
            "ours": [run([step(s) for s in seconds]) for seconds in ours],
            "base": [run([step(s) for s in seconds]) for seconds in base],
        },
        held_out={"ours": 1.9, "base": 1.9},
        flops_per_token=2e9,
        limit=1e11,
    )


def test_speed_leaves_out_the_warm_up_and_takes_each_step_at_its_median_round() -> None:
    runs = measured([[99, 1, 3], [99, 2, 3], [99, 50, 4]], [[9, 8, 8]] * 3)
    assert step_seconds("ours", runs) == [2, 3]
    ours, base = figures([OURS, BASE], runs, "base")
    assert ours.tokens_per_second == pytest.approx(200 / 5)
    assert ours.trained_tokens_per_second == pytest.approx(80 / 5)
    assert base.tokens_per_second == pytest.approx(200 / 16)
    assert ours.speed_ratio == pytest.approx(16 / 5)
    assert base.speed_ratio == 1


def test_share_of_the_limit_is_useful_work_over_time_and_rate() -> None:
    (ours,) = figures([OURS], measured([[9, 4, 4]], [[9, 8, 8]]), "base")
    assert ours.tokens_per_second == 25
    assert ours.limit_share == pytest.approx(25 * 2e9 / 1e11)


def test_padding_is_counted_in_positions_computed_a_token() -> None:
    (ours,) = figures([OURS], measured([[9, 4, 4]], [[9, 8, 8]]), "base")
    assert ours.slots_per_token == pytest.approx(1.2)
