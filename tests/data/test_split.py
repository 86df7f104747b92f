from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llamafarm.data.split import eval_count, read_eval_percent, split_records
from llamafarm.errors import DataError, UserError

FRACTIONS = st.floats(0.001, 0.95)
SEEDS = st.integers(0, 2**31)


@given(st.integers(2, 400), FRACTIONS, SEEDS)
def test_distinct_rows_split_into_exact_counts(rows: int, fraction: float, seed: int) -> None:
    split = split_records(range(rows), fraction, seed)
    assert len(split.eval) == min(max(1, round(rows * fraction)), rows - 1)
    assert not split.warnings


@given(st.lists(st.integers(0, 20), min_size=2, max_size=80), FRACTIONS, SEEDS, st.booleans())
def test_both_sides_are_a_partition_in_the_files_order(
    keys: list[int], fraction: float, seed: int, shuffle: bool
) -> None:
    split = split_records(keys, fraction, seed, shuffle=shuffle)
    assert split.train and split.eval
    assert sorted(split.train + split.eval) == list(range(len(keys)))
    assert list(split.train) == sorted(split.train)
    assert list(split.eval) == sorted(split.eval)


@given(st.lists(st.integers(0, 20), min_size=2, max_size=80), FRACTIONS, SEEDS)
def test_split_keeps_duplicates_on_one_side(keys: list[int], fraction: float, seed: int) -> None:
    assume(len(set(keys)) > 1)
    split = split_records(keys, fraction, seed)
    assert not {keys[row] for row in split.train} & {keys[row] for row in split.eval}


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), min_size=2, max_size=60),
    FRACTIONS,
    SEEDS,
)
def test_split_keeps_groups_and_duplicates_on_one_side(
    rows: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    keys, groups = [k for k, _ in rows], [g for _, g in rows]
    split = split_records(keys, fraction, seed, groups=groups)
    if any("had to be put on both sides" in warning for warning in split.warnings):
        return
    for labels in (keys, groups):
        assert not {labels[r] for r in split.train} & {labels[r] for r in split.eval}


@given(st.lists(st.integers(0, 20), min_size=2, max_size=60), FRACTIONS, SEEDS)
def test_the_same_seed_gives_the_same_split(keys: list[int], fraction: float, seed: int) -> None:
    assert split_records(keys, fraction, seed) == split_records(keys, fraction, seed)


@given(st.lists(st.integers(0, 200), min_size=2, max_size=80), FRACTIONS, SEEDS)
def test_the_count_is_exact_whenever_enough_rows_stand_alone(
    keys: list[int], fraction: float, seed: int
) -> None:
    wanted = eval_count(len(keys), fraction)
    alone = sum(1 for count in Counter(keys).values() if count == 1)
    assume(alone >= wanted)
    split = split_records(keys, fraction, seed)
    assert len(split.eval) == wanted


@given(st.lists(st.integers(0, 12), min_size=2, max_size=80), FRACTIONS, SEEDS)
def test_the_count_is_off_by_less_than_one_group_otherwise(
    keys: list[int], fraction: float, seed: int
) -> None:
    sizes = Counter(keys)
    assume(len(sizes) > 1)
    wanted = eval_count(len(keys), fraction)
    split = split_records(keys, fraction, seed)
    assert abs(len(split.eval) - wanted) < max(sizes.values())
    assert bool(split.warnings) == (len(split.eval) != wanted)


def test_different_seeds_give_different_splits() -> None:
    assert len({split_records(range(50), 0.2, seed).eval for seed in range(10)}) == 10


def test_groups_larger_than_the_eval_side_give_as_few_rows_as_possible_with_a_warning() -> None:
    keys = ["a"] * 12 + ["b"] * 5 + ["c"] * 8
    split = split_records(keys, 0.1, 42)
    assert [keys[row] for row in split.eval] == ["b"] * 5
    assert split.warnings == (
        "5 evaluation rows instead of 2: rows that say the same stay on one side",
    )


def test_rows_that_all_say_the_same_are_parted_with_a_warning() -> None:
    split = split_records(["a"] * 10, 0.3, 42)
    assert (len(split.train), len(split.eval)) == (7, 3)
    assert "say the same" in split.warnings[0]


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_cannot_be_split(rows: int) -> None:
    with pytest.raises(DataError, match="cannot be split"):
        split_records(range(rows), 0.1, 42)


def test_without_shuffling_the_last_rows_are_evaluated_on() -> None:
    assert split_records(range(10), 0.2, 42, shuffle=False).eval == (8, 9)


def test_strata_keep_their_shares() -> None:
    strata = ["heart"] * 60 + ["skin"] * 30 + ["eye"] * 10
    split = split_records(range(100), 0.2, 42, strata=strata)
    assert Counter(strata[row] for row in split.eval) == {"heart": 12, "skin": 6, "eye": 2}


@given(
    st.lists(st.tuples(st.integers(0, 500), st.sampled_from("xyz")), min_size=2, max_size=80),
    FRACTIONS,
    SEEDS,
)
def test_a_stratum_of_distinct_rows_is_off_by_at_most_one(
    rows: list[tuple[int, str]], fraction: float, seed: int
) -> None:
    keys, strata = [k for k, _ in rows], [s for _, s in rows]
    assume(len(set(keys)) == len(keys))
    split = split_records(keys, fraction, seed, strata=strata)
    assert len(split.eval) == eval_count(len(keys), fraction)
    found, totals = Counter(strata[row] for row in split.eval), Counter(strata)
    wanted = defaultdict(float, {s: len(split.eval) * n / len(keys) for s, n in totals.items()})
    assert all(abs(found[s] - wanted[s]) < 1 for s in totals)


@pytest.mark.parametrize(
    ("value", "rows", "share"),
    [
        (10.0, 300, 0.1),
        ("10", 300, 0.1),
        ("10%", 300, 0.1),
        (0.1, 300, 0.1),
        (1, 300, 0.01),
        ("auto", 49, 0.05),
        ("auto", 50, 0.1),
        ("AUTO", 100_000, 0.1),
    ],
)
def test_percentages_are_read(value: float | str, rows: int, share: float) -> None:
    found, _ = read_eval_percent(value, rows)
    assert found == pytest.approx(share)


def test_a_share_below_one_is_read_as_a_fraction_and_says_so() -> None:
    assert read_eval_percent(0.1, 300)[1] == "eval-percent 0.1 is read as 10 %"
    assert read_eval_percent(10, 300)[1] == ""
    assert read_eval_percent("auto", 30)[1] == "eval-percent auto: 5 % for 30 rows"


@pytest.mark.parametrize("value", [0, -5, 100, 250.0, float("nan"), "ten", ""])
def test_other_percentages_are_refused(value: float | str) -> None:
    with pytest.raises(UserError) as caught:
        read_eval_percent(value, 300)
    assert "--eval-percent 10" in caught.value.hint


def test_a_count_is_rounded_and_not_cut_by_floating_point() -> None:
    assert eval_count(100, 0.29) == 29
    assert eval_count(3, 0.1) == 1
    assert eval_count(2, 0.95) == 1
