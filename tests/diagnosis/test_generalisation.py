from __future__ import annotations

import math

import pytest

from .hand_made import (
    HEALTHY_EVALS,
    events,
    falling,
    finding,
    healthy,
    rules,
    settings,
    wave,
)

TURNED = {0: 2.4, 10: 2.0, 20: 2.1, 30: 2.3, 40: 2.5}


def test_nothing_is_found_in_a_healthy_run() -> None:
    assert rules(healthy()) == set()


def test_an_eval_loss_that_turns_while_training_goes_on_is_overfitting() -> None:
    found = finding(events(falling(by=0.04), TURNED), "overfitting")
    assert found.step == 30, "one rise alone may be chance, a second is not"
    assert found.text == (
        "the eval loss rose from 2.000 at step 10 to 2.300 while the training loss went to 1.380"
    )
    assert found.confidence == 0.999
    assert found.numbers["best_step"] == 10 and found.numbers["rise"] == pytest.approx(0.3)
    assert found.patch == {"training_args.num_train_epochs": 1, "method.dropout": 0.1}


def test_a_rise_inside_the_noise_band_is_none() -> None:
    assert "overfitting" not in rules(events(falling(by=0.01), TURNED, error=0.2))


def test_more_evaluation_rows_make_the_same_rise_sure() -> None:
    rise = {0: 2.4, 10: 2.0, 20: 2.05, 30: 2.05, 40: 2.05}
    few = events(falling(by=0.02), rise, error=0.011, rows=6)
    many = events(falling(by=0.02), rise, error=0.011, rows=200)
    assert "overfitting" not in rules(few) and "overfitting" in rules(many)


def test_where_the_rows_are_known_by_heart_an_ordinary_test_of_the_rise_is_enough() -> None:
    rise = {0: 2.4, 10: 0.5, 20: 0.6, 30: 0.62, 40: 0.63}
    by_heart = events(lambda n: 2.4 if n < 5 else 0.1, rise, error=0.04, rows=12)
    assert finding(by_heart, "overfitting").step == 30
    not_yet = events(lambda n: 2.4 if n < 5 else 0.4, rise, error=0.04, rows=12)
    assert "overfitting" not in rules(not_yet)
    unsure = events(lambda n: 2.4 if n < 5 else 0.1, rise, error=0.06, rows=12)
    assert "overfitting" not in rules(unsure)


def test_a_gap_that_opened_over_rows_known_by_heart_needs_only_an_ordinary_test() -> None:
    standing = {0: 2.4, 10: 1.3, 20: 1.31, 30: 1.31, 40: 1.31}
    for lowest, told in ((0.2, True), (0.7, False)):
        run = events(lambda n, to=lowest: max(to, 2.5 - 0.1 * n), standing, error=0.1, rows=12)
        assert ("overfitting" in rules(run)) == told


def test_a_training_loss_that_climbs_again_is_not_overfitting() -> None:
    def diverging(number: int) -> float:
        return 4.0 if number <= 10 else 1.8 if number <= 20 else 2.6

    assert "overfitting" not in rules(events(diverging, {0: 4.5, 10: 2.0, 20: 2.1, 30: 4.8}))
    going_on = events(lambda n: diverging(min(n, 20)), {0: 4.5, 10: 2.0, 20: 2.1, 30: 4.8})
    assert "overfitting" in rules(going_on)


def test_a_sure_rise_of_less_than_a_hundredth_is_not_worth_a_run() -> None:
    rise = {0: 2.4, 10: 2.0, 20: 2.01, 30: 2.015, 40: 2.018}
    assert "overfitting" not in rules(events(falling(by=0.02), rise, error=1e-4))


def test_a_rise_that_goes_back_is_none() -> None:
    evals = {0: 2.4, 10: 2.0, 20: 2.3, 30: 1.95, 40: 1.9}
    assert "overfitting" not in rules(events(falling(), evals))


def test_a_rise_with_the_training_loss_is_not_overfitting() -> None:
    run = events(lambda n: 2.0 + 0.02 * n + wave(n), TURNED)
    assert "overfitting" not in rules(run)


def test_of_the_last_evaluation_a_sure_rise_is_enough() -> None:
    evals = {0: 2.4, 20: 2.0, 40: 2.3}
    assert finding(events(falling(), evals), "overfitting").step == 40
    assert "overfitting" not in rules(events(falling(), evals, status="interrupted"))


def test_a_gap_that_opened_is_overfitting_although_the_eval_loss_only_stands() -> None:
    evals = {0: 2.4, 10: 2.1, 20: 2.101, 30: 2.102, 40: 2.103}
    found = finding(events(falling(by=0.045), evals), "overfitting")
    assert found.text.startswith("the gap between eval and training loss opened to +0.849")
    assert found.numbers["gap"] > 0.5


def test_a_gap_that_was_there_from_the_start_is_none() -> None:
    evals = {number: loss + 1.0 for number, loss in HEALTHY_EVALS.items()}
    assert "overfitting" not in rules(events(falling(), {**evals, 40: evals[30] + 0.001}))


def test_a_gap_is_none_while_the_eval_loss_falls() -> None:
    assert "overfitting" not in rules(events(falling(by=0.055), HEALTHY_EVALS))


@pytest.mark.parametrize("rows", [{"error": None, "rows": 1}, {"error": math.nan}])
def test_without_a_noise_band_nothing_is_said_of_a_rise(rows: dict[str, float]) -> None:
    run = events(falling(by=0.012), TURNED, **rows)
    assert "overfitting" not in rules(run)


def test_a_full_finetune_gets_no_dropout() -> None:
    told = settings(method="full", rank=0, alpha=0.0, dropout=0.0)
    found = finding(events(falling(by=0.04), TURNED, told=told), "overfitting")
    assert found.patch == {"training_args.num_train_epochs": 1}
    assert "dropout" not in found.advice


def test_epochs_after_the_best_are_wasted_and_told_at_the_end() -> None:
    found = finding(events(falling(by=0.04), TURNED), "wasted_epochs")
    assert found.step == 40
    assert found.text == (
        "the best step is 10, after 1.0 of 4.0 epochs: the 3.0 after it (75 % of the run) brought "
        "nothing"
    )
    assert found.patch == {
        "training_args.num_train_epochs": 1,
        "training_args.early_stopping_patience": 3,
    }


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_what_was_not_finished_is_not_called_wasted(status: str) -> None:
    assert "wasted_epochs" not in rules(events(falling(by=0.04), TURNED, status=status))


def test_a_best_step_by_chance_makes_nothing_wasted() -> None:
    chance = {0: 2.4, 10: 2.393, 20: 2.397, 30: 2.4, 40: 2.396}
    assert "wasted_epochs" not in rules(events(falling(by=0.0), chance))


def test_less_than_an_epoch_after_the_best_is_not_wasted() -> None:
    evals = {0: 2.4, 10: 2.0, 20: 1.9, 31: 1.8, 40: 1.81}
    assert "wasted_epochs" not in rules(events(falling(), evals))


def test_an_eval_loss_that_falls_with_what_is_learnt_by_heart_is_suspicious() -> None:
    evals = {0: 2.4, 10: 2.0, 20: 1.2, 30: 0.5, 40: 0.1}
    train = [max(0.1, 2.4 - 0.02 * n - (0.05 * (n - 10) if n > 10 else 0)) for n in range(1, 41)]
    found = finding(events(train, evals), "suspiciously_low_loss")
    assert found.step == 40 and "while rows that were met for the first time had 2.2" in found.text
    assert found.patch == {"dataset.allow_leakage": False}


def test_a_task_that_is_learnt_in_the_first_pass_may_have_a_low_loss() -> None:
    train = [max(0.1, 2.4 - 0.4 * n) for n in range(1, 41)]
    assert "suspiciously_low_loss" not in rules(
        events(train, {0: 2.4, 10: 0.12, 20: 0.11, 30: 0.1, 40: 0.09})
    )


def test_a_base_model_that_knows_the_answers_is_suspicious_at_once() -> None:
    found = finding(events(falling(0.05, 0.0), {0: 0.01, 40: 0.005}), "suspiciously_low_loss")
    assert found.step == 0 and "before any training" in found.text


def test_one_evaluation_says_nothing_of_other_data() -> None:
    assert rules(events(falling(), {40: 1.9})) == set()
    assert rules(events(falling(), {})) == set()


def test_evaluations_that_are_no_number_are_left_out() -> None:
    evals = {0: 2.4, 10: 2.0, 20: math.nan, 30: 2.3, 40: math.nan}
    assert "overfitting" not in rules(events(falling(), evals))
