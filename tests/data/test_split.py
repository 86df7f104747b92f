from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from numpy.typing import NDArray

from llamafarm.data.groups import merge_groups
from llamafarm.data.split import (
    EVAL,
    TRAIN,
    Split,
    SplitRequest,
    SplitSize,
    read_eval_percent,
    split_rows,
)
from llamafarm.errors import DataError, UserError

FRACTIONS = st.floats(0.001, 0.95)
SEEDS = st.integers(0, 2**31)
LABELS = st.lists(st.integers(0, 20), min_size=2, max_size=80)


def _groups(*labellings: Sequence[object]) -> NDArray[np.int64]:
    return merge_groups(len(labellings[0]), [np.array(labels) for labels in labellings])


def _split(
    labels: Sequence[object],
    fraction: float,
    seed: int = 42,
    *,
    shuffle: bool = True,
    strata: Sequence[object] | None = None,
) -> Split:
    request = SplitRequest(SplitSize(fraction), seed=seed, shuffle=shuffle)
    values = None if strata is None else np.array(strata)
    return split_rows(_groups(labels), request, strata=values)


def _eval_count(rows: int, fraction: float) -> int:
    """What is promised: rounded, at least one, and at least one left for training."""
    return min(max(1, round(rows * fraction)), rows - 1)


def _keys(rows: int, seed: int = 0) -> NDArray[np.uint64]:
    """Hashes of what rows say: the first ones are the same however many are asked for."""
    return np.array([random.Random(f"{seed} {row}").getrandbits(64) for row in range(rows)], "u8")


def _sides_of_groups(split: Split, groups: NDArray[np.int64]) -> list[set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for group, side in zip(groups.tolist(), split.sides.tolist(), strict=True):
        found[group].add(side)
    return list(found.values())


# Sizes and sides.


@given(st.integers(2, 400), FRACTIONS, SEEDS)
def test_distinct_rows_split_into_exact_counts(rows: int, fraction: float, seed: int) -> None:
    split = _split(range(rows), fraction, seed)
    assert len(split.eval) == min(max(1, round(rows * fraction)), rows - 1)
    assert not split.warnings


@given(LABELS, FRACTIONS, SEEDS, st.booleans())
def test_both_sides_are_a_partition_in_the_files_order(
    keys: list[int], fraction: float, seed: int, shuffle: bool
) -> None:
    split = _split(keys, fraction, seed, shuffle=shuffle)
    assert len(split.train) and len(split.eval)
    assert sorted([*split.train, *split.eval]) == list(range(len(keys)))
    assert split.counts == (len(split.train), len(split.eval), 0)
    assert list(split.train) == sorted(split.train)
    assert list(split.eval) == sorted(split.eval)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=3, max_size=60),
    st.floats(0.01, 0.5),
    st.floats(0.01, 0.45) | st.none(),
    SEEDS,
    st.booleans(),
    st.booleans(),
)
def test_groups_never_straddle_sides_unless_a_warning_says_so(
    rows: list[tuple[int, int]],
    fraction: float,
    test: float | None,
    seed: int,
    shuffle: bool,
    stratified: bool,
) -> None:
    groups = _groups([key for key, _ in rows], [group for _, group in rows])
    request = SplitRequest(
        SplitSize(fraction), None if test is None else SplitSize(test), seed, shuffle
    )
    strata = np.arange(len(rows)) % 3 if stratified else None
    split = split_rows(groups, request, strata=strata)
    assert all(split.counts[: 2 if test is None else 3])
    straddling = [sides for sides in _sides_of_groups(split, groups) if len(sides) > 1]
    told = [text for text in split.warnings if "put on" in text or "belong together" in text]
    assert len(told) == len(straddling)


@given(LABELS, FRACTIONS, SEEDS, st.booleans())
def test_the_same_seed_gives_the_same_split(
    keys: list[int], fraction: float, seed: int, stratified: bool
) -> None:
    strata = [key % 3 for key in keys] if stratified else None
    once, again = (_split(keys, fraction, seed, strata=strata) for _ in range(2))
    assert np.array_equal(once.sides, again.sides)
    assert once.warnings == again.warnings


def test_different_seeds_give_different_splits() -> None:
    assert len({tuple(_split(range(50), 0.2, seed).eval) for seed in range(10)}) == 10


@given(st.lists(st.integers(0, 200), min_size=2, max_size=80), FRACTIONS, SEEDS)
def test_the_count_is_exact_whenever_enough_rows_stand_alone(
    keys: list[int], fraction: float, seed: int
) -> None:
    wanted = _eval_count(len(keys), fraction)
    alone = sum(1 for count in Counter(keys).values() if count == 1)
    assume(alone >= wanted)
    split = _split(keys, fraction, seed)
    assert len(split.eval) == wanted


@given(st.lists(st.integers(0, 12), min_size=2, max_size=80), FRACTIONS, SEEDS)
def test_the_count_is_off_by_less_than_one_group_otherwise(
    keys: list[int], fraction: float, seed: int
) -> None:
    sizes = Counter(keys)
    wanted = _eval_count(len(keys), fraction)
    split = _split(keys, fraction, seed)
    assert abs(len(split.eval) - wanted) < max(sizes.values())
    assert wanted / 2 <= len(split.eval) <= 2 * wanted
    assert any("instead of" in text for text in split.warnings) == (len(split.eval) != wanted)


def test_a_group_a_little_larger_than_the_eval_side_is_taken_whole() -> None:
    keys = ["a"] * 12 + ["b"] * 4 + ["c"] * 9
    split = _split(keys, 0.1)
    assert [keys[row] for row in split.eval] == ["b"] * 4
    assert split.warnings == ("4 evaluation rows instead of 2: rows of one group stay on one side",)


def test_a_group_much_larger_than_the_eval_side_is_split_within_itself_with_a_warning() -> None:
    keys = ["a"] * 12 + ["b"] * 5 + ["c"] * 8
    split = _split(keys, 0.1)
    assert [keys[row] for row in split.eval] == ["a"] * 2
    (warning,) = split.warnings
    assert warning == (
        "12 rows belong together, more than the sides can take whole (row 1, row 2, row 3 and 9 "
        "more): 2 are evaluated on and 10 are trained on, so the loss of held-out rows looks "
        "better than it is"
    )


def test_a_large_group_stays_whole_where_others_fill_the_eval_side() -> None:
    split = _split(["a"] * 90 + list(map(str, range(10))), 0.1)
    assert split.eval.tolist() == list(range(90, 100))
    assert not split.warnings


def test_warnings_name_rows_as_the_caller_does() -> None:
    groups = np.repeat([0, 1], [60, 40])
    request = SplitRequest(SplitSize(0.1))
    split = split_rows(groups, request, name=lambda row: f"data.jsonl:{row + 2}")
    assert "(data.jsonl:2, data.jsonl:3, data.jsonl:4 and 57 more)" in split.warnings[0]


@pytest.mark.parametrize(("shuffle", "first"), [(True, None), (False, 7)])
def test_rows_that_all_say_the_same_are_parted_with_a_warning(
    shuffle: bool, first: int | None
) -> None:
    split = _split(["a"] * 10, 0.3, shuffle=shuffle)
    assert split.counts == (7, 3, 0)
    assert "say the same" in split.warnings[0]
    assert first is None or split.eval[0] == first


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_cannot_be_split(rows: int) -> None:
    with pytest.raises(DataError, match="cannot be split into a training and an evaluation side"):
        split_rows(np.zeros(rows, np.int64), SplitRequest(SplitSize(0.1)))


def test_without_shuffling_the_last_rows_are_evaluated_on() -> None:
    assert _split(range(10), 0.2, shuffle=False).eval.tolist() == [8, 9]


def test_a_million_rows_are_split_exactly() -> None:
    keys = np.random.default_rng(0).integers(0, 900_000, 1_000_000).astype(np.uint64)
    groups = merge_groups(len(keys), [keys])
    split = split_rows(groups, SplitRequest(SplitSize(0.1), SplitSize(rows=1000)))
    assert split.counts == (899_000, 100_000, 1000)
    assert not np.intersect1d(keys[split.train], keys[split.eval]).size


# Strata.


def test_strata_keep_their_shares() -> None:
    strata = ["heart"] * 60 + ["skin"] * 30 + ["eye"] * 10
    split = _split(range(100), 0.2, strata=strata)
    assert Counter(strata[row] for row in split.eval) == {"heart": 12, "skin": 6, "eye": 2}


def test_strata_keep_their_shares_on_the_test_side_too() -> None:
    strata = np.repeat(["heart", "skin", "eye"], [60, 30, 10])
    request = SplitRequest(SplitSize(0.2), SplitSize(rows=10))
    split = split_rows(np.arange(100), request, strata=strata)
    assert Counter(strata[split.eval].tolist()) == {"heart": 12, "skin": 6, "eye": 2}
    assert Counter(strata[split.test].tolist()) == {"heart": 6, "skin": 3, "eye": 1}


@given(
    st.lists(st.sampled_from("xyz"), min_size=2, max_size=80),
    FRACTIONS,
    SEEDS,
)
def test_a_stratum_of_distinct_rows_is_off_by_at_most_one(
    strata: list[str], fraction: float, seed: int
) -> None:
    split = _split(range(len(strata)), fraction, seed, strata=strata)
    assert len(split.eval) == _eval_count(len(strata), fraction)
    found, totals = Counter(strata[row] for row in split.eval), Counter(strata)
    share = len(split.eval) / len(strata)
    assert all(abs(found[s] - share * n) < 1 for s, n in totals.items())


# Three sides, and counts.


@given(
    st.lists(st.integers(0, 15), min_size=3, max_size=80),
    st.floats(0.01, 0.5),
    st.floats(0.01, 0.45),
    SEEDS,
)
def test_three_sides_are_a_partition_and_none_is_empty(
    keys: list[int], fraction: float, test: float, seed: int
) -> None:
    request = SplitRequest(SplitSize(fraction), SplitSize(test), seed)
    split = split_rows(_groups(keys), request)
    assert sorted([*split.train, *split.eval, *split.test]) == list(range(len(keys)))
    assert all(split.counts)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200), SEEDS)
def test_counts_of_distinct_rows_are_exact(held_out: int, test: int, more: int, seed: int) -> None:
    rows = held_out + test + more
    request = SplitRequest(SplitSize(rows=held_out), SplitSize(rows=test), seed)
    assert split_rows(np.arange(rows), request).counts == (more, held_out, test)


@pytest.mark.parametrize(
    "sizes",
    [
        (SplitSize(rows=1), SplitSize(rows=1)),
        (SplitSize(0.9), SplitSize(0.09)),
        (SplitSize(0.9), SplitSize(rows=1)),
        (SplitSize(rows=1), SplitSize(0.9)),
    ],
)
def test_three_rows_are_enough_for_three_sides(sizes: tuple[SplitSize, SplitSize]) -> None:
    for groups in (np.arange(3), np.array([0, 0, 1]), np.array([0, 1, 1]), np.zeros(3, np.int64)):
        assert split_rows(groups, SplitRequest(*sizes)).counts == (1, 1, 1)


def test_a_test_side_leaves_the_evaluation_rows_as_they_are() -> None:
    without = split_rows(np.arange(100), SplitRequest(SplitSize(0.1)))
    with_test = split_rows(np.arange(100), SplitRequest(SplitSize(0.1), SplitSize(0.1)))
    assert without.eval.tolist() == with_test.eval.tolist()


def test_two_rows_are_too_few_for_three_sides() -> None:
    with pytest.raises(DataError, match="training, an evaluation and a test side") as caught:
        split_rows(np.arange(2), SplitRequest(SplitSize(0.1), SplitSize(0.1)))
    assert "at least 3 rows" in caught.value.hint


@pytest.mark.parametrize(
    ("request_", "needed"),
    [
        (SplitRequest(SplitSize(rows=10)), 11),
        (SplitRequest(SplitSize(rows=8), SplitSize(rows=3)), 12),
        (SplitRequest(SplitSize(0.1), SplitSize(rows=9)), 11),
    ],
)
def test_more_rows_than_there_are_is_refused(request_: SplitRequest, needed: int) -> None:
    with pytest.raises(DataError) as caught:
        split_rows(np.arange(10), request_)
    assert f"bring at least {needed} rows" in caught.value.hint
    split_rows(np.arange(needed), request_)


def test_shares_that_leave_nothing_for_training_are_refused() -> None:
    with pytest.raises(UserError, match="take 110 % of the rows"):
        SplitRequest(SplitSize(0.6), SplitSize(0.5))


@pytest.mark.parametrize("size", [{"fraction": 0.0}, {"fraction": 1.0}, {"rows": 0}])
def test_a_side_holds_more_than_none_and_less_than_all(size: dict[str, float]) -> None:
    with pytest.raises(UserError, match="a side holds"):
        SplitSize(**size)  # type: ignore[arg-type]


# Stable splits.


def _stable(groups: NDArray[np.int64], fraction: float, seed: int, test: float = 0.2) -> Split:
    request = SplitRequest(SplitSize(fraction), SplitSize(test), seed, stable=True)
    return split_rows(groups, request, stable_keys=_keys(len(groups)))


@given(
    st.lists(st.integers(0, 150), min_size=80, max_size=160),
    st.integers(40, 79),
    st.floats(0.2, 0.5),
    SEEDS,
)
def test_rows_added_to_a_stable_split_move_no_old_row(
    labels: list[int], before: int, fraction: float, seed: int
) -> None:
    labels = [*range(40), *labels[40:]]
    try:
        old = _stable(_groups(labels[:before]), fraction, seed)
        new = _stable(_groups(labels), fraction, seed)
    except DataError:  # a side was empty
        reject()
    assert new.sides[:before].tolist() == old.sides.tolist()
    assert all(len(sides) == 1 for sides in _sides_of_groups(new, _groups(labels)))


def test_a_new_row_that_joins_two_old_groups_takes_the_later_to_the_earlier_ones_side() -> None:
    alone = np.arange(60)
    before = _stable(alone, 0.3, 1)
    ends = [int(before.eval[0]), int(before.train[-1])]
    earlier, later = min(ends), max(ends)
    joined = merge_groups(61, [], [(np.array([60, 60]), np.array([earlier, later]))])
    after = _stable(joined, 0.3, 1)
    assert before.sides[earlier] != before.sides[later]
    assert after.sides[[earlier, later, 60]].tolist() == [before.sides[earlier]] * 3
    others = np.setdiff1d(alone, [later])
    assert after.sides[others].tolist() == before.sides[others].tolist()


def test_a_larger_share_of_a_stable_split_only_adds_rows() -> None:
    small, large = (_stable(np.arange(300), fraction, 3) for fraction in (0.1, 0.3))
    assert set(small.eval.tolist()) < set(large.eval.tolist())
    assert small.test.tolist() == large.test.tolist()


def test_a_stable_split_is_close_to_its_share_and_says_what_it_promises() -> None:
    split = _stable(np.arange(10_000), 0.1, 42)
    assert abs(len(split.eval) - 1000) < 100 and abs(len(split.test) - 2000) < 150
    (notice,) = split.notices
    assert notice == (
        "stable: no old row changes sides when rows are added, unless they join two old groups; "
        f"counts are approximate: {len(split.eval):,} evaluation rows where 1,000 were asked for, "
        f"{len(split.test):,} test rows where 2,000 were asked for"
    )
    assert split.warnings == ()


def test_stable_splits_stay_as_they_are_from_release_to_release() -> None:
    chosen = [5, 7, 8, 9, 11, 15, 17]
    assert _stable(np.arange(30), 0.2, 42).eval.tolist() == chosen
    assert _stable(np.arange(30), 0.2, 43).eval.tolist() != chosen


def test_a_stable_split_cannot_hold_an_exact_number_of_rows() -> None:
    with pytest.raises(UserError, match="exactly 5 rows") as caught:
        SplitRequest(SplitSize(rows=5), stable=True)
    assert "share of the rows" in caught.value.hint


def test_a_stable_split_with_an_empty_side_is_refused() -> None:
    request = SplitRequest(SplitSize(0.01), stable=True)
    with pytest.raises(DataError, match="leaves nothing on the evaluation side") as caught:
        split_rows(np.arange(5), request, stable_keys=_keys(5))
    assert "without a stable split" in caught.value.hint


def test_what_a_stable_split_cannot_obey_is_told() -> None:
    request = SplitRequest(SplitSize(0.3), shuffle=False, stable=True)
    split = split_rows(np.arange(50), request, strata=np.zeros(50), stable_keys=_keys(50))
    assert [text.split(" has no effect")[0] for text in split.warnings] == [
        "stratify_by",
        "shuffle: false",
    ]


def test_a_large_group_that_falls_on_the_eval_side_of_a_stable_split_is_told() -> None:
    groups = np.array([0] * 60 + list(range(1, 41)))
    found = {}
    for seed in range(40):
        request = SplitRequest(SplitSize(0.2), seed=seed, stable=True)
        split = split_rows(groups, request, stable_keys=_keys(100))
        found[int(split.sides[0])] = split.warnings
    assert found[TRAIN] == ()
    assert "60 rows that belong together (row 1, row 2, row 3 and 57 more) fell" in found[EVAL][0]


# The same rows as before.


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from("xyz")), min_size=2, max_size=100),
    st.floats(0.01, 0.9),
    SEEDS,
    st.booleans(),
    st.booleans(),
)
def test_the_chosen_rows_are_those_of_earlier_versions(
    rows: list[tuple[int, str]], fraction: float, seed: int, stratified: bool, shuffle: bool
) -> None:
    keys = [key for key, _ in rows]
    strata = [stratum for _, stratum in rows] if stratified else None
    assume(len(set(keys)) > 1)
    wanted = _eval_count(len(keys), fraction)
    earlier = _earlier_choice(keys, wanted, seed, strata, shuffle)
    # Where whole groups gave less than half or more than double, a group is split now.
    assume(wanted / 2 <= len(earlier) <= 2 * wanted)
    split = _split(keys, fraction, seed, strata=strata, shuffle=shuffle)
    assert split.eval.tolist() == earlier


def _earlier_choice(
    keys: list[int], wanted: int, seed: int, strata: list[str] | None, shuffle: bool
) -> list[int]:
    """Version 1's choice, on lists."""
    members: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    groups = list(members.values())
    order = list(range(len(groups)))
    if shuffle:
        random.Random(seed).shuffle(order)
    else:
        order.reverse()
    chosen: list[int] = []

    def take(candidates: list[int], count: int) -> None:
        for group in candidates:
            if group not in chosen and len(groups[group]) <= count:
                chosen.append(group)
                count -= len(groups[group])

    if strata is not None:
        of_group = [strata[group[0]] for group in groups]
        sizes: Counter[str] = Counter()
        for stratum, group in zip(of_group, groups, strict=True):
            sizes[stratum] += len(group)
        shares = {stratum: wanted * size / len(keys) for stratum, size in sizes.items()}
        counts = {stratum: math.floor(share) for stratum, share in shares.items()}
        by_remainder = sorted(shares, key=lambda stratum: counts[stratum] - shares[stratum])
        for stratum in by_remainder[: wanted - sum(counts.values())]:
            counts[stratum] += 1
        for stratum, count in counts.items():
            take([group for group in order if of_group[group] == stratum], count)
    take(order, wanted - sum(len(groups[group]) for group in chosen))
    chosen = chosen or [min(order, key=lambda group: len(groups[group]))]
    return sorted(row for group in chosen for row in groups[group])


# What flags mean.


@pytest.mark.parametrize(
    ("value", "rows", "share"),
    [
        (10.0, 300, 0.1),
        ("10", 300, 0.1),
        ("10%", 300, 0.1),
        (0.1, 300, 0.1),
        ("0.5%", 3000, 0.005),
        (1, 300, 0.01),
        ("auto", 49, 0.05),
        ("auto", 50, 0.1),
        ("AUTO", 100_000, 0.1),
        ("robust", 30, 0.15),
        ("research", 30, 0.2),
    ],
)
def test_percentages_are_read(value: float | str, rows: int, share: float) -> None:
    found, _ = read_eval_percent(value, rows)
    assert found == pytest.approx(share)


def test_a_share_below_one_is_read_as_a_fraction_and_says_so() -> None:
    assert read_eval_percent(0.1, 300)[1] == "eval-percent 0.1 is read as 10 %"
    assert read_eval_percent(10, 300)[1] == ""
    assert read_eval_percent("auto", 30)[1] == "eval-percent auto: 5 % for 30 rows"
    assert read_eval_percent("robust", 30)[1] == "eval-percent robust: 15 % for 30 rows"
    assert read_eval_percent(0.1, 9, "--test-percent")[1] == "test-percent 0.1 is read as 10 %"


@pytest.mark.parametrize("value", [0, -5, 100, 250.0, float("nan"), "ten", ""])
def test_other_percentages_are_refused(value: float | str) -> None:
    with pytest.raises(UserError) as caught:
        read_eval_percent(value, 300)
    assert "--eval-percent 10" in caught.value.hint
    assert "auto, robust or research" in caught.value.summary


def test_a_count_is_rounded_and_not_cut_by_floating_point() -> None:
    for rows, fraction, count in ((100, 0.29, 29), (3, 0.1, 1), (2, 0.95, 1)):
        split = split_rows(np.arange(rows), SplitRequest(SplitSize(fraction)))
        assert len(split.eval) == count
