from __future__ import annotations

from llamafarm.monitoring.events import StepEvent

from .hand_made import HEALTHY_EVALS, events, falling, finding, healthy, rules, settings, wave

LITTLE = {0: 4.4, 10: 4.35, 20: 4.3, 30: 4.28, 40: 4.25}
FLAT = {0: 2.4, 10: 2.0, 20: 2.001, 30: 1.999, 40: 2.0}


def test_two_losses_that_stay_high_are_underfitting() -> None:
    found = finding(events(falling(4.4, 0.004), LITTLE), "underfitting")
    assert found.step == 40
    assert found.text == (
        "both losses are still high: eval 4.250 (base 4.400), training 4.258 (at first 4.404)"
    )
    assert found.confidence > 0.99
    assert found.patch == {
        "training_args.num_train_epochs": 5.0,
        "method.r": 16,
        "method.alpha": 32.0,
    }


def test_a_rate_below_the_guides_highest_is_raised_too() -> None:
    told = settings(learning_rate=6e-5)
    found = finding(events(falling(4.4, 0.004), LITTLE, told=told), "underfitting")
    assert found.patch["training_args.learning_rate"] == 1e-4


def test_a_tenth_of_the_loss_gained_is_enough() -> None:
    assert "underfitting" not in rules(healthy())


def test_a_loss_that_was_low_from_the_start_leaves_little_to_learn() -> None:
    low = {number: loss / 5 for number, loss in LITTLE.items()}
    assert "underfitting" not in rules(events(falling(0.88, 0.001), low))


def test_a_training_loss_that_fell_by_itself_is_not_underfitting() -> None:
    assert "underfitting" not in rules(events(falling(4.4, 0.06), LITTLE))


def test_underfitting_is_not_told_before_the_end() -> None:
    assert "underfitting" not in rules(events(falling(4.4, 0.004), LITTLE, status="interrupted"))
    assert "underfitting" not in rules(events(falling(4.4, 0.004), LITTLE)[:-1])


def test_a_loss_that_stays_where_it_is_for_a_third_of_the_run_is_a_plateau() -> None:
    found = finding(events(lambda n: 2.0 + wave(n), FLAT), "plateau")
    assert found.step == 30
    assert found.text == (
        "the eval loss has stayed at 2.000 since step 10 (1.999 now), at a learning rate of 1.0e-04"
    )
    assert found.patch == {"method.r": 16, "method.alpha": 32.0}


def test_the_end_of_a_decay_is_no_plateau() -> None:
    run = [
        e if not isinstance(e, StepEvent) or e.step < 25 else _at_rate(e, 1e-6)
        for e in events(lambda n: 2.0 + wave(n), {**FLAT, 20: 1.9, 30: 1.899, 40: 1.899})
    ]
    assert "plateau" not in rules(run)


def test_a_training_loss_that_still_falls_is_no_plateau() -> None:
    assert "plateau" not in rules(events(falling(by=0.03), FLAT))


def test_a_loss_that_never_fell_is_no_plateau() -> None:
    flat = dict.fromkeys(FLAT, 2.4) | {40: 2.3999}
    assert "plateau" not in rules(events(lambda n: 2.4 + wave(n), flat))


def test_an_eval_loss_that_rose_did_not_stay_where_it_was() -> None:
    rose = {**FLAT, 20: 4.8, 30: 4.6, 40: 4.6}
    assert "plateau" not in rules(events(lambda n: 2.0 + wave(n), rose))


def test_a_slow_fall_is_progress() -> None:
    slow = {0: 2.4, 10: 2.0, 20: 1.97, 30: 1.94, 40: 1.91}
    assert "plateau" not in rules(events(lambda n: 2.0 + wave(n), slow, error=0.001))


def test_a_noise_that_could_hide_a_fall_leaves_a_plateau_unsaid() -> None:
    assert "plateau" not in rules(events(lambda n: 2.0 + wave(n), FLAT, error=0.05))


def test_a_plateau_needs_its_evaluations() -> None:
    assert "plateau" not in rules(events(lambda n: 2.0 + wave(n), {0: 2.4, 20: 2.0, 40: 2.0}))
    without_base = {k: v for k, v in FLAT.items() if k}
    assert "plateau" not in rules(events(lambda n: 2.0 + wave(n), without_base))


def test_a_healthy_run_makes_progress() -> None:
    assert rules(events(falling(), HEALTHY_EVALS)) == set()


def _at_rate(event: StepEvent, rate: float) -> StepEvent:
    from dataclasses import replace

    return replace(event, learning_rate=rate)
