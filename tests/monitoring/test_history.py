from __future__ import annotations

import math

import pytest

from llamafarm.monitoring.events import BestLostEvent
from llamafarm.monitoring.history import LossHistory

from .events_of_a_run import eval_event, events_of_a_run, start_event, step_event


def test_points_are_those_of_steps_and_evaluations() -> None:
    history = LossHistory.of([start_event(), eval_event(0, 2.2), step_event(1, 2.1)])
    assert history.train_points == [(1, 2.1)]
    assert history.eval_points == [(0, 2.2)]


def test_nonfinite_losses_are_left_out() -> None:
    history = LossHistory.of([step_event(1, math.nan), step_event(2, 2.0), eval_event(2, math.inf)])
    assert history.train_points == [(2, 2.0)]
    assert history.eval_points == []
    assert history.train_loss_at(2) == 2.0


def test_training_loss_is_weighted_by_trained_tokens_since_the_last_evaluation() -> None:
    steps = [
        step_event(1, 9.0, tokens_a_step=2),
        step_event(2, 2.0, tokens_a_step=2),  # 2 trained tokens in all: 1 new
        step_event(3, 5.0, tokens_a_step=4),  # 6 in all: 4 new
    ]
    history = LossHistory.of([steps[0], eval_event(1, 3.0), *steps[1:], eval_event(3, 4.0)])
    assert history.train_loss_at(3) == pytest.approx((1 * 2.0 + 4 * 5.0) / 5)
    assert history.train_loss_at(1) == 9.0


def test_the_gap_is_eval_minus_training_loss() -> None:
    history = LossHistory.of([step_event(1, 1.5), eval_event(1, 1.75)])
    assert history.gap_at(history.evaluations[0]) == 0.25


def test_there_is_no_gap_before_the_first_step() -> None:
    history = LossHistory.of([eval_event(0, 2.0)])
    assert history.gap_at(history.evaluations[0]) is None


def test_base_best_and_last_evaluation_are_found() -> None:
    history = LossHistory.of(events_of_a_run())
    assert history.base is not None and history.base.step == 0
    assert history.best is not None and history.best.step == 8
    assert history.last_evaluation is not None and history.last_evaluation.step == 12
    empty = LossHistory()
    assert (empty.base, empty.best, empty.last_evaluation) == (None, None, None)


def lost(step: int, kept: int) -> BestLostEvent:
    return BestLostEvent(step=step, lost_step=step, kept_step=kept, text="disk full")


def test_where_the_best_is_lost_the_kept_one_is_the_best_again() -> None:
    evaluations = [eval_event(4, 2.0, best=True), eval_event(8, 1.8, best=True)]
    history = LossHistory.of([*evaluations, lost(8, kept=4)])
    assert history.best is evaluations[0]
    assert history.eval_points == [(4, 2.0), (8, 1.8)]


def test_all_that_was_better_than_the_kept_one_is_lost() -> None:
    evaluations = [eval_event(step, 3.0 - step / 10, best=True) for step in (2, 4, 6)]
    assert LossHistory.of([*evaluations, lost(6, kept=2)]).best is evaluations[0]
    assert LossHistory.of([*evaluations, lost(6, kept=0)]).best is None


def test_a_step_that_is_evaluated_again_counts_again() -> None:
    again = eval_event(8, 1.8, best=True)
    history = LossHistory.of([eval_event(8, 1.8, best=True), lost(8, kept=0), again])
    assert history.best is again


def test_a_later_best_is_the_best_although_an_earlier_one_was_lost() -> None:
    later = eval_event(12, 1.9, best=True)
    history = LossHistory.of(
        [eval_event(4, 2.0, best=True), eval_event(8, 1.8, best=True), lost(8, kept=4), later]
    )
    assert history.best is later


def test_the_metric_of_an_evaluation_is_found_with_and_without_its_prefix() -> None:
    evaluation = eval_event(1, 2.0, bleu=0.25, eval_chrf=0.5)
    assert evaluation.value_of("eval_loss") == evaluation.value_of("loss") == 2.0
    assert evaluation.value_of("accuracy") == evaluation.value_of("eval_accuracy") == 0.5
    assert evaluation.value_of("eval_bleu") == evaluation.value_of("bleu") == 0.25
    assert evaluation.value_of("eval_chrf") == 0.5
    assert evaluation.value_of("rouge") is None


def test_a_display_of_a_long_run_keeps_a_bounded_number_of_steps() -> None:
    history = LossHistory(most_steps=100)
    for step in range(1, 5001):
        history.add(step_event(step, 2.0 if step % 2 else 4.0))
    assert len(history.steps) <= 100
    assert [s.step for s in history.steps][-40:] == list(range(4961, 5001))
    assert all(2.0 < loss < 4.0 for _, loss in history.train_points[:20])
    assert history.steps[-1].step == 5000


def test_a_loss_that_is_no_number_does_not_spoil_the_pair() -> None:
    history = LossHistory(most_steps=4)
    for step, loss in enumerate((2.0, math.nan, math.nan, 5.0, 1.0), start=1):
        history.add(step_event(step, loss))
    assert [s.loss for s in history.steps][::2] == [2.0, 5.0]
