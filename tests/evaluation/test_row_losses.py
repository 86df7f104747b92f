"""How sure a mean over rows is."""

from __future__ import annotations

import math
import random

import pytest

from llamafarm.evaluation.row_losses import RowLosses, mean_and_error


def test_with_equal_rows_it_is_the_textbook_standard_error_of_a_mean() -> None:
    values = [1.0, 2.0, 4.0, 7.0]
    mean, error = mean_and_error(values, [3, 3, 3, 3])
    deviation = math.sqrt(sum((v - 3.5) ** 2 for v in values) / 3)
    assert (mean, error) == (3.5, pytest.approx(deviation / 2))


def test_the_error_covers_the_truth_as_often_as_it_says() -> None:
    chance = random.Random(0)
    missed = 0
    for _ in range(400):
        tokens = [chance.randint(5, 60) for _ in range(40)]
        losses = [chance.gauss(2.0, 0.5) for _ in tokens]
        mean, error = mean_and_error(losses, tokens)
        assert error is not None
        missed += abs(mean - 2.0) > 1.96 * error
    assert 8 <= missed <= 40  # 5 % of 400, and the error itself is an estimate


def test_pairs_take_out_what_makes_a_row_hard() -> None:
    hard = [1.0, 5.0, 3.0, 0.5]
    before = RowLosses(tuple(hard), (10, 20, 30, 40))
    after = RowLosses(tuple(loss - 0.1 for loss in hard), (10, 20, 30, 40))
    change, error = after.change_from(before)
    assert change == pytest.approx(-0.1)
    assert error == pytest.approx(0.0, abs=1e-12)
    assert after.standard_error is not None
    assert after.standard_error > 0.1


def test_one_row_has_no_error() -> None:
    assert RowLosses((2.0,), (7,)).standard_error is None


def test_losses_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="different rows"):
        RowLosses((1.0,), (3,)).change_from(RowLosses((1.0,), (4,)))
