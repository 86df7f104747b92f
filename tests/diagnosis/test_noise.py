from __future__ import annotations

import math
import statistics
from dataclasses import replace
from random import Random

import pytest

from llamafarm.monitoring.diagnosis.noise import Level, change_between, level_of, sureness
from llamafarm.monitoring.diagnosis.observed import Observed
from llamafarm.monitoring.events import Event

from .hand_made import evaluations, rules, settings, step, wave


def level(losses: list[float]) -> Level | None:
    observed = Observed()
    for number, loss in enumerate(losses, start=1):
        observed.add(step(number, loss))
    return level_of(observed.stretches)


# Quantiles of Student's t from tables.
@pytest.mark.parametrize(
    ("t", "freedom", "chance"),
    [
        (2.201, 11, 0.975),
        (2.718, 11, 0.99),
        (1.645, 10_000, 0.95),
        (4.297, 9, 0.999),
        (0.0, 5, 0.5),
    ],
)
def test_sureness_is_that_of_students_t(t: float, freedom: int, chance: float) -> None:
    assert sureness(t, 1.0, freedom + 1) == pytest.approx(chance, abs=1e-3)
    assert sureness(-2 * t, 2.0, freedom + 1) == pytest.approx(1 - chance, abs=1e-3)


def test_two_equal_evaluations_are_neither_better_nor_worse() -> None:
    assert (sureness(0.0, 0.0, 9), sureness(0.1, 0.0, 9), sureness(-0.1, 0.0, 9)) == (
        0.5,
        0.999,
        pytest.approx(0.001),
    )
    assert sureness(1.0, math.inf, 9) == 0.5


def test_a_falling_loss_is_not_taken_for_noise() -> None:
    steady = level([3.0 - 0.1 * n for n in range(20)])
    noisy = level([2.0 + wave(n, 0.5) for n in range(20)])
    assert steady is not None and noisy is not None
    assert steady.error < 0.02 < 0.05 < noisy.error
    change = change_between(noisy, steady)
    assert change.error == math.hypot(noisy.error, steady.error)


def test_of_two_steps_the_noise_is_not_known() -> None:
    assert level([]) is None
    assert level([2.0, 1.0]) == Level(1.5, math.inf)


def test_evaluations_that_only_differ_by_chance_raise_an_alarm_in_few_runs_of_a_thousand() -> None:
    """Twelve rows, ten evaluations of weights that do not change, noise of its own in each."""
    random, alarms = Random(0), 0
    for _ in range(400):
        alarms += "overfitting" in rules([settings(total_steps=40), *flat_evaluations(random)])
    assert alarms <= 3


def flat_evaluations(random: Random) -> list[Event]:
    draws = [[random.gauss(0, 1) for _ in range(12)] for _ in range(11)]
    means = [2 + statistics.fmean(draw) for draw in draws]
    made = list(evaluations({4 * n: mean for n, mean in enumerate(means)}, rows=12).values())
    run: list[Event] = []
    best = 0
    for number, event in enumerate(made):
        differences = [a - b for a, b in zip(draws[number], draws[best], strict=True)]
        error = statistics.stdev(differences) / math.sqrt(12) if number else None
        run += [step(n, 2.0 - 0.001 * n) for n in range(4 * number - 3, 4 * number + 1) if n > 0]
        run.append(replace(event, change_standard_error=error))
        best = number if event.best else best
    return run
