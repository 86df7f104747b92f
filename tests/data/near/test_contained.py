from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.near import contained
from llamafarm.data.near.contained import COMPARED_ROWS, MIN_SHINGLES, contained_pairs
from tests.data.near.rows import Row, as_dict, shingles_of, store_of

Pairs = dict[tuple[int, int], float]


def search(rows: Sequence[Row], inner: Sequence[int], outer: Sequence[int]) -> Pairs:
    with store_of(rows) as store:
        return as_dict(contained_pairs(store, np.array(inner), np.array(outer)))


def by_brute_force(rows: Sequence[Row], inner: Sequence[int], outer: Sequence[int]) -> Pairs:
    sets = [shingles_of(row) for row in rows]
    shares = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i])
        for i in inner
        for j in outer
        if i != j and len(sets[i]) >= MIN_SHINGLES
    }
    return {pair: share for pair, share in shares.items() if share >= 0.95}


def text(rng: random.Random, count: int) -> list[str]:
    return [f"word{rng.randrange(500)}" for _ in range(count)]


def nested(seed: int, inside: int = 150) -> list[tuple[str]]:
    """Inner rows of 5 to 80 words, then documents: most of them hold one, with a word changed now
    and then.
    """
    rng = random.Random(seed)
    inner = [text(rng, rng.randint(5, 80)) for _ in range(inside)]
    documents = []
    for words in inner:
        words = list(words)
        for _ in range(rng.choice((0, 0, 1, 2))):
            words[rng.randrange(len(words))] = "changed"
        documents.append(text(rng, 30) + words * (rng.random() < 0.8) + text(rng, 50))
    return [(" ".join(words),) for words in inner + documents]


def test_all_that_a_comparison_of_all_rows_finds_is_found() -> None:
    rows = nested(seed=0)
    inner, outer = range(150), range(150, 300)
    expected = by_brute_force(rows, inner, outer)
    assert len(expected) > 50
    assert min(expected.values()) < 1
    assert search(rows, inner, outer) == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_both_sides_may_be_the_same_rows(seed: int) -> None:
    rows = nested(seed, inside=12)
    everything = range(len(rows))
    expected = by_brute_force(rows, everything, everything)
    assert search(rows, everything, everything) == pytest.approx(expected, abs=1e-6)


def test_a_row_of_fewer_than_8_shingles_is_contained_in_nothing() -> None:
    rows = [("1 2 3 4 5 6 7 8 9",), ("1 2 3 4 5 6 7 8 9 10",), ("1 2 3 4 5 6 7 8 9 10 11 12 13",)]
    assert search(rows, [0, 1], [2]) == {(1, 2): 1.0}


@pytest.mark.parametrize(("inner", "outer"), [([], []), ([0], []), ([], [0])])
def test_without_rows_on_both_sides_nothing_is_contained(
    inner: list[int], outer: list[int]
) -> None:
    assert search([("1 2 3 4 5 6 7 8 9 10 11 12",)], inner, outer) == {}


def test_a_short_row_is_not_contained_when_one_shingle_is_missing() -> None:
    words = [f"w{i}" for i in range(20)]
    whole = ("intro " + " ".join(words) + " end",)
    lacks_one = ("intro " + " ".join([*words[:-1], "x"]) + " end",)
    assert search([(" ".join(words),), whole, lacks_one], [0], [1, 2]) == {(0, 1): 1.0}


def test_inner_rows_are_taken_in_parts_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = nested(seed=4, inside=40)
    whole = search(rows, range(40), range(40, 80))
    monkeypatch.setattr(contained, "_INNER_SHINGLES", 100)
    monkeypatch.setattr(contained, "_READ_SHINGLES", 300)
    monkeypatch.setattr(contained, "_CANDIDATES_AT_ONCE", 2)
    assert search(rows, range(40), range(40, 80)) == whole


def test_a_row_of_a_template_is_found_in_its_container_among_thousands_of_others() -> None:
    template = "The distance from town {0} to the next town on the road is {0} miles as we measured"
    rows = [(template.format(number),) for number in range(50)]
    rows += [
        (f"Chapter {number}. " + template.format(number) + ". Here it ends.",)
        for number in range(3000)
    ]
    found = search(rows, range(50), range(50, len(rows)))
    assert found.keys() == {(number, 50 + number) for number in range(50)}


def test_no_more_than_64_containers_are_named() -> None:
    words = " ".join(f"w{i}" for i in range(20))
    rows = [(words,)] + [(f"{number} {words}",) for number in range(500)]
    found = search(rows, [0], range(1, 501))
    assert found.keys() == {(0, number) for number in range(1, COMPARED_ROWS + 1)}


def test_progress_is_told_until_all_is_done() -> None:
    told: list[tuple[int, int]] = []
    with store_of(nested(seed=4, inside=20)) as store:
        contained_pairs(
            store, np.arange(20), np.arange(20, 40), progress=lambda *done: told.append(done)
        )
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
