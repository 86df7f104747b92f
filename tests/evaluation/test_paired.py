"""How sure a difference between two models on the same rows is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from llamafarm.evaluation.paired import (
    FEWEST_MOVED,
    RowScores,
    compare_accuracies,
    compare_losses,
    paired_change,
)
from llamafarm.evaluation.row_losses import RowLosses, mean_and_error
from llamafarm.monitoring.comparison import PairedChange, verdict_text

Draw = Callable[[random.Random], float]


def by_rows(ours: list[float], theirs: list[float], *, more: bool = True) -> PairedChange:
    return paired_change(RowScores.of_rows(ours), RowScores.of_rows(theirs), greater_is_better=more)


def losses(values: list[float], tokens: list[int], correct: list[int] | None = None) -> RowLosses:
    return RowLosses(tuple(values), tuple(tokens), tuple(correct or ()))


def test_the_change_is_that_of_the_loss_per_token() -> None:
    before = losses([1.0, 2.0, 4.0], [10, 30, 60])
    after = losses([1.5, 2.0, 3.0], [10, 30, 60])
    found = compare_losses(after, before)
    assert found.change == pytest.approx(after.loss - before.loss)
    assert found.change == pytest.approx((10 * 0.5 - 60 * 1.0) / 100)
    assert (found.better, found.worse, found.same, found.rows) == (1, 1, 1, 3)


def test_a_models_own_tokens_weigh_its_own_rows() -> None:
    """Another tokenizer reads the same rows as other tokens."""
    ours, theirs = losses([1.0, 3.0], [10, 30]), losses([2.0, 2.0], [50, 10])
    assert compare_losses(ours, theirs).change == pytest.approx(2.5 - 2.0)


def test_the_accuracy_is_that_of_all_tokens() -> None:
    ours, theirs = losses([1, 1], [10, 30], [5, 30]), losses([1, 1], [10, 30], [5, 15])
    assert compare_accuracies(ours, theirs).change == pytest.approx(15 / 40)
    assert (ours.accuracy, theirs.accuracy) == (35 / 40, 20 / 40)


def test_the_interval_of_many_rows_is_the_one_of_the_ratio_estimator() -> None:
    """Cochran's linearised standard error, and the normal quantile."""
    chance = random.Random(5)
    tokens = [chance.randint(5, 60) for _ in range(400)]
    before = [chance.gauss(2.0, 0.5) for _ in tokens]
    after = [loss + chance.gauss(-0.05, 0.2) for loss in before]
    mean, error = mean_and_error([a - b for a, b in zip(after, before, strict=True)], tokens)
    assert error is not None
    found = compare_losses(losses(after, tokens), losses(before, tokens))
    assert found.low is not None
    assert found.high is not None
    assert found.change == pytest.approx(mean)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)


def test_more_rows_than_are_drawn_one_by_one_have_the_same_interval() -> None:
    random_numbers = np.random.default_rng(3)
    differences = random_numbers.normal(0.1, 1.0, 20_000)
    found = by_rows(differences.tolist(), [0.0] * 20_000)
    error = differences.std() / math.sqrt(20_000)
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.2 * error)
    assert found.rows == 20_000


@pytest.mark.parametrize("rows", [8, 25, 80])
def test_the_interval_holds_the_truth_as_often_as_it_says(rows: int) -> None:
    chance = random.Random(rows)
    missed = 0
    for _ in range(300):
        tokens = [chance.randint(5, 60) for _ in range(rows)]
        before = [chance.gauss(2.0, 0.5) for _ in tokens]
        after = [loss + chance.gauss(-0.1, 0.2) for loss in before]
        found = compare_losses(losses(after, tokens), losses(before, tokens))
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= -0.1 <= found.high
    assert 5 <= missed <= 30  # 15 expected of 300; four standard deviations are 15


@pytest.mark.parametrize(
    "draw",
    [lambda chance: chance.gauss(0, 0.2), lambda chance: chance.choice([-1, 0, 0, 0, 1])],
    ids=["noise", "right or wrong"],
)
def test_models_that_are_equally_good_are_told_apart_no_more_often_than_that(draw: Draw) -> None:
    chance = random.Random(1)
    told = 0
    for _ in range(300):
        theirs = [chance.random() for _ in range(30)]
        ours = [value + draw(chance) for value in theirs]
        told += by_rows(ours, theirs).verdict in ("better", "worse")
    assert told <= 30


def test_equal_rows_are_no_difference() -> None:
    found = by_rows([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.change, found.low, found.high, found.same) == (0.0, 0.0, 0.0, 3)
    assert found.verdict == "no difference"
    assert verdict_text(found) == "no difference: every row is the same"


def test_what_rounding_changes_is_no_difference() -> None:
    before = losses([2.0] * 20, [10] * 20)
    after = losses([2.0 - 3e-7] * 20, [10] * 20)
    found = compare_losses(after, before)
    assert (found.verdict, found.same, found.change) == ("no difference", 20, 0.0)


def test_a_difference_inside_the_noise_is_called_that() -> None:
    found = by_rows([1.0, -1.0] * 10, [0.1] * 20)
    assert (found.verdict, verdict_text(found)) == (
        "no difference",
        "no difference: inside the noise",
    )


@pytest.mark.parametrize(("more", "verdict"), [(True, "better"), (False, "worse")])
def test_which_way_is_better_decides(more: bool, verdict: str) -> None:
    found = by_rows([1.0 + i / 50 for i in range(20)], [0.0] * 20, more=more)
    assert found.verdict == verdict
    assert (found.better, found.worse) == ((20, 0) if more else (0, 20))


def test_a_few_rows_that_moved_show_nothing() -> None:
    """Five rows go one way by chance in one case of sixteen."""
    moved = [1.0] * (FEWEST_MOVED - 1) + [0.0] * 95
    found = by_rows(moved, [0.0] * 100)
    assert (found.low, found.high, found.verdict) == (None, None, "too few rows")
    assert verdict_text(found) == "too few rows to tell: 5 of 100 moved"
    assert by_rows([1.0] * FEWEST_MOVED, [0.0] * FEWEST_MOVED).verdict == "better"


def test_the_same_rows_give_the_same_interval() -> None:
    ours, theirs = [i % 7 / 7 for i in range(40)], [i % 5 / 5 for i in range(40)]
    assert by_rows(ours, theirs) == by_rows(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0])])
def test_what_cannot_be_compared_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"different rows|not finite"):
        by_rows(ours, theirs)
