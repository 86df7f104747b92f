from __future__ import annotations

import pytest

from llamafarm.monitoring.diagnosis import patches

from .hand_made import settings


@pytest.mark.parametrize(("rate", "lower"), [(3e-3, 7.1e-5), (8e-5, 7.1e-5), (6e-5, 2e-5)])
def test_a_lower_rate_is_the_guides_middle_or_a_third(rate: float, lower: float) -> None:
    assert patches.lower_rate(settings(learning_rate=rate)) == lower


@pytest.mark.parametrize(("rate", "higher"), [(1e-6, 7.1e-5), (8e-5, 2.4e-4), (1e-5, 7.1e-5)])
def test_a_higher_rate_is_the_guides_middle_or_above(rate: float, higher: float) -> None:
    assert patches.higher_rate(settings(learning_rate=rate)) == higher


@pytest.mark.parametrize(("rank", "more"), [(8, 16), (32, 64), (48, 64), (64, None), (0, None)])
def test_a_rank_is_doubled_up_to_the_guides_highest(rank: int, more: int | None) -> None:
    told = settings(rank=rank, alpha=2.0 * rank)
    expected = {"method.r": more, "method.alpha": 2.0 * more} if more else {}
    assert patches.more_rank(told) == expected


@pytest.mark.parametrize(("dropout", "more"), [(0.0, 0.1), (0.08, 0.16), (0.15, 0.2), (0.2, None)])
def test_dropout_grows_up_to_the_guides_most(dropout: float, more: float | None) -> None:
    expected = {} if more is None else {"method.dropout": more}
    assert patches.more_dropout(settings(dropout=dropout)) == expected


def test_whole_epochs_are_written_as_epochs_and_others_as_steps() -> None:
    assert patches.ends_after(settings(), 20) == {"training_args.num_train_epochs": 2}
    assert patches.ends_after(settings(), 24) == {"training_args.max_steps": 24}
    assert patches.ends_after(settings(), 0) == {"training_args.max_steps": 1}
    # A run of a number of steps has no whole epochs, so that its steps decide.
    told = settings(num_epochs=2.4, total_steps=24)
    assert patches.ends_after(told, 20) == {"training_args.max_steps": 20}


def test_more_epochs_stay_within_the_guide() -> None:
    assert patches.more_epochs(settings(num_epochs=2.0)) == {"training_args.num_train_epochs": 4.0}
    assert patches.more_epochs(settings(num_epochs=5.0)) == {}
    assert patches.more_epochs(settings(num_epochs=1.2)) == {"training_args.max_steps": 24}


@pytest.mark.parametrize(
    ("size", "accumulation", "half"), [(4, 2, (2, 4)), (5, 1, (2, 3)), (2, 4, (1, 8))]
)
def test_half_the_rows_at_once_keep_the_rows_of_an_update(
    size: int, accumulation: int, half: tuple[int, int]
) -> None:
    told = settings(micro_batch_size=size, accumulation_steps=accumulation)
    assert tuple(patches.smaller_batch(told).values()) == half


def test_a_longer_warmup_is_a_tenth_of_the_run() -> None:
    assert patches.more_warmup(settings()) == {"training_args.warmup_steps": 0.1}
    assert patches.more_warmup(settings(warmup_steps=4)) == {}
