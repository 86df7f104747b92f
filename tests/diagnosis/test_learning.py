from __future__ import annotations

import math
from dataclasses import replace

import pytest

from llamafarm.monitoring.events import Event, FindingEvent, NonFiniteEvent

from .hand_made import (
    HEALTHY_EVALS,
    end,
    evaluations,
    events,
    falling,
    finding,
    healthy,
    rules,
    settings,
    step,
    wave,
)

RATE_TOO_HIGH = "learning_rate_too_high"
HIGH = settings(learning_rate=3e-3)
LOW = settings(learning_rate=1e-6)
NO_PROGRESS = {0: 2.4, 10: 2.398, 20: 2.395, 30: 2.393, 40: 2.39}


def exploding(number: int) -> float:
    return 2.4 + wave(number) if number < 4 else 6.0 + wave(number, 0.5)


def test_a_loss_far_above_its_start_says_that_the_rate_is_too_high() -> None:
    run = events(exploding, {0: 2.4, 10: 6.1, 20: 6.2, 40: 6.0}, told=HIGH)
    found = finding(run, RATE_TOO_HIGH)
    assert found.step == 10, "told while the run goes on"
    assert found.text == (
        "the training loss rose from 2.412 to 5.767 at a learning rate of 3.0e-03"
    )
    assert found.confidence > 0.99
    assert found.patch == {
        "training_args.learning_rate": 7.1e-5,
        "training_args.warmup_steps": 0.1,
    }


def test_a_rate_within_the_guide_that_still_explodes_is_divided_by_three() -> None:
    run = events(exploding, {0: 2.4, 40: 6.0}, told=settings(learning_rate=6e-5, warmup_steps=4))
    found = finding(run, RATE_TOO_HIGH)
    assert found.patch == {"training_args.learning_rate": 2e-5}


def test_without_evaluations_the_training_loss_alone_says_so_at_the_end() -> None:
    assert finding(events(exploding, {}, told=HIGH), RATE_TOO_HIGH).step == 40


def jumps_at_once(number: int) -> float:
    """High from the third step on, so that the start is as high as the end."""
    return {1: 2.4, 2: 2.4, 3: 12.0}.get(number, 4.0 + wave(number, 0.3))


def test_evaluations_far_above_the_base_model_say_so_where_the_start_is_too_noisy() -> None:
    found = finding(events(jumps_at_once, {0: 2.4, 20: 4.1, 40: 4.2}, told=HIGH), RATE_TOO_HIGH)
    assert found.text == (
        "the evaluation loss rose from the base model's 2.400 to 4.100, and the training loss did "
        "not fall, at a learning rate of 3.0e-03"
    )


def test_evaluations_above_the_base_model_with_a_training_loss_that_fell_are_overfitting() -> None:
    run = events(falling(by=0.04), {0: 2.4, 20: 4.1, 40: 4.2}, told=HIGH)
    assert RATE_TOO_HIGH not in rules(run)


def test_a_noisy_loss_that_falls_is_not_too_high_a_rate() -> None:
    run = events(lambda n: 2.4 - 0.01 * n + wave(n, 0.8), HEALTHY_EVALS, told=HIGH)
    assert RATE_TOO_HIGH not in rules(run)


def test_an_explosion_that_recovered_is_not_told_at_the_end() -> None:
    def recovers(number: int) -> float:
        return 5.0 if 4 <= number < 8 else 2.0 + wave(number)

    assert RATE_TOO_HIGH not in rules(events(recovers, {0: 2.4, 20: 2.0, 40: 1.9}))


def test_losses_that_are_no_number_at_a_rate_above_the_guide_are_a_reason() -> None:
    bad = NonFiniteEvent(step=3, what="loss", action="skip", rows=())
    steps = [step(n, math.nan if n < 5 else 2.0) for n in range(1, 9)]
    run: list[Event] = [HIGH, *steps[:3], bad, *steps[3:], end(8)]
    assert finding(run, RATE_TOO_HIGH).numbers["nonfinite"] == 1
    assert RATE_TOO_HIGH not in rules([settings(), *run[1:]])


def test_no_progress_at_a_rate_far_below_the_guide_is_too_low_a_rate() -> None:
    found = finding(events(falling(by=0.0003), NO_PROGRESS, told=LOW), "learning_rate_too_low")
    assert found.step == 20, "half of the run is enough to see it"
    assert found.text == (
        "the loss went from 2.400 to 2.395 in 20 steps, and the learning rate 1.0e-06 is 50 times "
        "below the guide's lowest (5.0e-05)"
    )
    assert found.patch == {"training_args.learning_rate": 7.1e-5}


def test_no_progress_within_the_guide_has_another_name() -> None:
    found = rules(events(falling(by=0.0003), NO_PROGRESS))
    assert "learning_rate_too_low" not in found and "underfitting" in found


def test_a_low_rate_that_makes_progress_is_not_too_low() -> None:
    assert rules(healthy(told=LOW)) == set()


def test_without_evaluations_the_training_loss_shows_no_progress() -> None:
    assert "learning_rate_too_low" in rules(events(falling(by=0.0), {}, told=LOW))


def test_an_eval_loss_that_never_moves_says_that_nothing_is_learnt() -> None:
    same = dict.fromkeys(NO_PROGRESS, 2.4)
    found = finding(events(falling(by=0.0), same), "adapter_not_learning")
    assert found.step == 10 and "still the base model's (2.400)" in found.text
    assert found.patch == {"method.target_modules": "all-linear"}
    assert "plateau" not in rules(events(falling(by=0.0), same))


def test_a_slow_adapter_is_no_frozen_one() -> None:
    run = events(falling(by=0.0), NO_PROGRESS, told=LOW)
    assert "adapter_not_learning" not in rules(run)


def test_a_gradient_of_nothing_is_enough_without_evaluations() -> None:
    run = events(falling(by=0.0), {}, told=LOW, grad_norm=0.0)
    found = finding(run, "adapter_not_learning")
    assert "the gradient is 0" in found.text
    assert found.patch["training_args.learning_rate"] == 7.1e-5
    assert "learning_rate_too_low" not in rules(run)


def test_before_the_rate_has_risen_nothing_is_frozen() -> None:
    warming = [step(n, 2.4, learning_rate=0.0 if n == 1 else 1e-6) for n in range(1, 3)]
    at = evaluations({0: 2.4, 2: 2.4})
    assert rules([settings(), at[0], *warming, at[2]]) == set()


def test_spikes_with_other_rows_in_front_each_time_are_an_unstable_loss() -> None:
    run = healthy(told=HIGH)
    spikes = [FindingEvent(step=n, rule="spike", text="", rows=(f"a:{n}",)) for n in (20, 25, 30)]
    found = finding([*run[:-2], *spikes, *run[-2:]], "unstable_loss")
    assert found.text == "3 steps stand out of the run's own history (steps 20, 25, 30)"
    assert found.confidence == 0.75
    assert found.patch["training_args.learning_rate"] == 7.1e-5


def test_spikes_of_one_row_are_that_rows_fault() -> None:
    run = healthy(told=HIGH)
    spikes = [FindingEvent(step=n, rule="spike", text="", rows=("a:7",)) for n in (20, 25, 30)]
    assert rules([*run[:-2], *spikes, *run[-2:]]) == {"spike"}


@pytest.mark.parametrize(("error", "found"), [(0.01, True), (0.3, False)])
def test_an_eval_loss_that_goes_up_and_down_is_unstable(error: float, found: bool) -> None:
    evals = {0: 2.4, 5: 2.1, 10: 2.5, 15: 2.0, 20: 2.4, 25: 1.9, 40: 1.85}
    assert ("unstable_loss" in rules(events(falling(), evals, error=error))) == found


def test_a_loss_that_jumps_further_than_its_rows_explain_is_unstable() -> None:
    # Rows differ by 0.1 * sqrt(20) = 0.45, and a step has eight of them: 0.16.
    def jumping(number: int) -> float:
        return falling()(number) + wave(number, 0.8)

    found = finding(events(jumping, HEALTHY_EVALS, told=HIGH), "unstable_loss")
    assert found.numbers["expected_jumps"] == pytest.approx(0.1 * math.sqrt(20 / 8))
    assert found.numbers["jumps"] > 4 * found.numbers["expected_jumps"]
    assert "times what the choice of the rows explains" in found.text
    assert "unstable_loss" not in rules(events(jumping, HEALTHY_EVALS)), "the rows may differ more"
    few_rows = settings(learning_rate=3e-3, micro_batch_size=1, accumulation_steps=1)
    calm = events(lambda n: falling()(n) + wave(n, 0.4), HEALTHY_EVALS, told=few_rows)
    assert "unstable_loss" not in rules(calm)


def test_one_row_that_stands_out_makes_no_unstable_loss() -> None:
    run = events(lambda n: falling()(n) + 5 * (n in (12, 27)), HEALTHY_EVALS)
    assert "unstable_loss" not in rules(run)


def test_a_single_step_is_enough_for_nothing() -> None:
    at = evaluations({0: 2.4, 1: 2.5})
    assert rules([settings(), at[0], step(1, 2.4), at[1], end(1)]) == set()


def test_what_has_no_settings_is_not_judged() -> None:
    assert rules(events(exploding, {0: 2.4, 40: 6.0}, told=HIGH)[1:]) == set()


def test_clipping_is_counted_in_the_evidence() -> None:
    run = events(exploding, {0: 2.4, 40: 6.0}, told=HIGH, grad_norm=5.0)
    assert finding(run, RATE_TOO_HIGH).numbers["clipped_share"] == 1.0
    unclipped = replace(HIGH, max_grad_norm=0.0)
    run = events(exploding, {0: 2.4, 40: 6.0}, told=unclipped, grad_norm=5.0)
    assert finding(run, RATE_TOO_HIGH).numbers["clipped_share"] == 0.0


def test_a_rate_of_0_is_too_low_without_a_ratio() -> None:
    run = events(falling(by=0.0), NO_PROGRESS, told=replace(LOW, learning_rate=0.0))
    text = finding(run, "learning_rate_too_low").text
    assert text.endswith("and the learning rate is 0 (the guide's lowest is 5.0e-05)")
