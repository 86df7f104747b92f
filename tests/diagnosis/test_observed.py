from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest

from llamafarm.monitoring.diagnosis.observed import (
    MOST_EVALUATIONS,
    MOST_STRETCHES,
    Observed,
    joined,
)
from llamafarm.monitoring.events import EvalEvent, FindingEvent, OutOfMemoryEvent

from .hand_made import end, evaluations, settings, step


def test_a_run_of_any_length_takes_a_bounded_room() -> None:
    observed = Observed()
    observed.add(settings(total_steps=100_000))
    at = evaluations({n: 3 - n / 100_000 for n in range(0, 100_001, 10)})
    observed.add(at[0])
    sizes: list[int] = []
    for number in range(1, 100_001):
        observed.add(step(number, 2.0))
        if number % 10 == 0:
            observed.add(at[number])
            observed.add(FindingEvent(step=number, rule="spike", text=""))
            observed.add(OutOfMemoryEvent(step=number, during="step", tokens=1, action=""))
        if number % 10_000 == 0:
            sizes.append(
                sum(sys.getsizeof(v) for v in vars(observed).values())
                + len(observed.stretches)
                + len(observed.evaluations)
            )
    assert len(observed.stretches) <= MOST_STRETCHES
    assert len(observed.evaluations) <= MOST_EVALUATIONS
    assert max(sizes) < 2 * min(sizes)
    assert observed.num_events == 100_000 and observed.num_shortages == 10_000
    assert sum(s.tokens for s in observed.stretches) == 100 * 100_000


def test_thinning_keeps_the_base_the_best_and_the_newest() -> None:
    observed = Observed()
    losses = {n: 2.0 + abs(n - 301) / 1000 for n in range(2000)}
    for event in evaluations(losses).values():
        observed.add(event)
    assert observed.base is not None and observed.base.step == 0
    assert observed.best is not None and observed.best.step == 301
    assert observed.last_evaluation is not None and observed.last_evaluation.step == 1999


def test_neighbours_are_joined_by_their_tokens() -> None:
    observed = Observed()
    observed.add(settings())
    observed.add(step(1, 4.0, trained_tokens=100, grad_norm=3.0))
    observed.add(step(2, 1.0, trained_tokens=400))
    whole = joined(observed.stretches)
    assert whole is not None
    assert (whole.loss, whole.tokens, whole.events, whole.clipped) == (1.75, 400, 2, 1)
    assert (whole.grad_norm, whole.step_seconds) == (1.75, 4.0)
    assert joined([]) is None


def test_a_loss_that_is_no_number_counts_for_nothing() -> None:
    observed = Observed()
    for event in (step(1, math.nan), step(2, 1.0), step(3, math.nan, grad_norm=math.nan)):
        observed.add(event)
    whole = joined(observed.stretches)
    assert whole is not None and (whole.loss, whole.grad_norm, whole.events) == (1.0, 0.5, 3)
    assert [s.step for s in observed.between(0, 3)] == [2]
    nothing = joined([observed.stretches[0], observed.stretches[2]])
    assert nothing is not None and math.isnan(nothing.loss)


def test_a_resumed_run_replaces_what_it_does_again() -> None:
    observed = Observed()
    at = evaluations({0: 2.0, 4: 1.9})
    before = [settings(), at[0], *(step(n, 2.0) for n in range(1, 6)), end(5, "interrupted")]
    for event in before:
        observed.add(event)
    assert observed.end is not None and not observed.completed
    again = [settings(learning_rate=5e-5), *(step(n, 1.0) for n in range(4, 7)), at[4], at[4]]
    for event in again:
        observed.add(event)
    assert observed.end is None
    assert [s.step for s in observed.stretches] == [1, 2, 3, 4, 5, 6]
    assert [s.loss for s in observed.stretches] == [2.0] * 3 + [1.0] * 3
    assert [e.step for e in observed.evaluations] == [0, 4]
    assert observed.settings is not None and observed.settings.learning_rate == 5e-5


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_an_evaluation_that_is_no_number_is_neither_base_nor_best(loss: float) -> None:
    observed = Observed()
    at: list[EvalEvent] = list(evaluations({0: 2.0, 4: 1.9}).values())
    observed.add(replace(at[0], eval_loss=loss))
    observed.add(replace(at[1], eval_loss=loss))
    assert (observed.base, observed.best, observed.last_evaluation) == (None, None, None)
    assert observed.after(0) == ()
