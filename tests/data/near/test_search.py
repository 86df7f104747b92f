from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.near import candidates
from llamafarm.data.near.candidates import COMPARISONS_PER_ROW, Field
from llamafarm.data.near.search import ENOUGH_PAIRS, NEAR_SIMILARITY, Search, near_pairs
from llamafarm.data.near.shingles import ShingleStore
from llamafarm.data.near.signatures import BANDS, set_digests
from tests.data.near.rows import Row, as_dict, edited_rows, jaccard, shingles_of, store_of

Pairs = dict[tuple[int, int], float]


def search(rows: Sequence[Row], threshold: float = NEAR_SIMILARITY) -> Pairs:
    with store_of(rows) as store:
        return as_dict(near_pairs(store, np.arange(len(rows)), threshold=threshold))


def by_brute_force(rows: Sequence[Row], threshold: float) -> Pairs:
    sets = [shingles_of(row) for row in rows]
    similar = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        for i, j in combinations(range(len(rows)), 2)
    }
    return {pair: similarity for pair, similarity in similar.items() if similarity >= threshold}


def test_all_pairs_that_a_comparison_of_all_rows_finds_are_found() -> None:
    rows = edited_rows(seed=0, bases=110)
    expected = by_brute_force(rows, 0.75)
    found = search(rows)
    assert len(rows) > 300 and len(expected) > 100
    assert not expected.keys() - found.keys()
    assert found == pytest.approx(by_brute_force(rows, 0.7), abs=1e-6)


TOKENS = st.sampled_from(["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "log", "1", "2"])
SENTENCES = st.lists(TOKENS, max_size=8)
FEW_ROWS = st.lists(st.lists(SENTENCES.map(" ".join), min_size=1, max_size=2), max_size=25)


@given(FEW_ROWS, st.sampled_from([0.7, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_every_similarity_is_that_of_the_sets_of_words(
    rows: list[list[str]], threshold: float
) -> None:
    for (first, second), similarity in search(rows, threshold).items():
        assert first < second
        assert similarity >= threshold
        assert similarity == pytest.approx(jaccard(rows[first], rows[second]), abs=1e-6)


@given(FEW_ROWS)
@settings(max_examples=40, deadline=None)
def test_equal_rows_are_always_found(rows: list[list[str]]) -> None:
    found = search([*rows, *rows])
    for row, texts in enumerate(rows):
        assert (row, row + len(rows)) in found or not any(text.strip() for text in texts)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_have_no_pairs(count: int) -> None:
    assert search([("one two three", "four")] * count) == {}


def test_rows_without_text_are_near_to_nothing() -> None:
    assert search([("", ""), (" ", ""), (), ("", "")]) == {}


def test_only_the_rows_that_are_asked_for_are_searched() -> None:
    rows = [("one two three four", "five")] * 6
    with store_of(rows) as store:
        found = near_pairs(store, np.array([4, 1, 1, 2]))
    assert as_dict(found).keys() == {(1, 2), (1, 4), (2, 4)}


def test_one_changed_word_in_26_is_near_and_another_number_in_a_template_is_not() -> None:
    words = [f"word{i}" for i in range(26)]
    changed = [*words[:12], "other", *words[13:]]
    rows = [
        ("", " ".join(words)),
        ("", " ".join(changed)),
        ("What is 17 + 25?", "17 + 25 = 42"),
        ("What is 17 + 26?", "17 + 26 = 43"),
    ]
    assert search(rows) == pytest.approx({(0, 1): 21 / 27})


def test_a_pair_at_the_threshold_is_near() -> None:
    shared = [f"{i} {i} {i}" for i in range(7)]
    rows = [(*shared, "a"), (*shared, "b", "c")]
    assert search(rows) == pytest.approx({(0, 1): 0.7})
    assert search(rows, threshold=0.71) == {}


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5])
def test_a_threshold_that_is_no_similarity_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        search([("a", "b")], threshold)


def test_the_order_of_rows_does_not_matter() -> None:
    rows = edited_rows(seed=3)
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)
    shuffled = search([rows[i] for i in order])
    back = {
        (min(order[i], order[j]), max(order[i], order[j])): value
        for (i, j), value in shuffled.items()
    }
    assert back == search(rows)


PROGRAM = """
import json, numpy as np
from llamafarm.data.near.search import near_pairs
from tests.data.near.rows import as_dict, edited_rows, store_of
rows = edited_rows(seed=5)
with store_of(rows) as store:
    found = as_dict(near_pairs(store, np.arange(len(rows))))
    print(json.dumps([store.shingles(0).tolist(), list(map(str, found.items()))]))
"""


def test_another_process_finds_the_same() -> None:
    answers = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True
        )
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1]
    assert len(answers[0][1]) > 50


def test_rows_that_are_sorted_in_many_parts_have_the_same_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = edited_rows(3)
    whole = search(rows)
    monkeypatch.setattr(candidates, "_SORTED_AT_ONCE", 7)
    assert search(rows) == whole
    assert whole


def test_progress_is_told_until_all_is_done() -> None:
    told: list[tuple[int, int]] = []
    rows = edited_rows(seed=2, bases=20)
    with store_of(rows) as store:
        near_pairs(store, np.arange(len(rows)), progress=lambda *done: told.append(done))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def test_scratch_files_of_the_search_are_removed() -> None:
    with store_of(edited_rows(seed=2, bases=20)) as store:
        before = sorted(store.folder.iterdir())
        near_pairs(store, np.arange(len(store)))
        assert sorted(store.folder.iterdir()) == before


def searched(store: ShingleStore) -> Search:
    rows = np.arange(len(store))
    search = Search(Field(store, rows, set_digests(store, rows)), NEAR_SIMILARITY)
    search.run(lambda done, count: None)
    return search


def letter(a: int, b: int, c: int) -> tuple[str, str]:
    """Two of them have 0.59 of their shingles in common where all numbers differ."""
    question = f"Write a polite letter to customer {a} about order {b} which is late"
    answer = (
        "Dear customer, we are sorry to tell you that your order has been delayed in our warehouse "
        f"so it will leave by day {c} and you can follow it online as order {b} or ask our staff "
        f"for help with your account {a}"
    )
    return question, answer


@pytest.mark.parametrize("count", [500, 4000])
def test_work_on_rows_of_one_template_is_bounded_for_each_row(count: int) -> None:
    rows = [letter(i, 10**6 + i, 2 * 10**6 + i) for i in range(count)]
    with store_of(rows) as store:
        search = searched(store)
    assert len(search.pairs()) == 0
    assert search.comparisons < COMPARISONS_PER_ROW * BANDS * count / 2


def test_sums_of_one_template_are_hardly_compared() -> None:
    rows = [(f"What is {a} + {b}?", f"{a} + {b} = {a + b}") for a in range(60) for b in range(60)]
    with store_of(rows) as store:
        search = searched(store)
    assert len(search.pairs()) == 0
    assert search.comparisons < 20 * len(rows)


def test_near_duplicates_among_thousands_of_one_template_are_found() -> None:
    rows = [letter(i, 10**6 + i, 2 * 10**6 + i) for i in range(3000)]
    rows += [letter(i, 10**6 + i, 3 * 10**6 + i) for i in range(100)]
    found = search(rows)
    assert found.keys() <= {(i, 3000 + i) for i in range(100)}
    assert len(found) >= 97


def test_all_rows_of_a_large_group_are_connected_by_few_pairs() -> None:
    words = [f"word{i}" for i in range(40)]
    rows = [
        ("", " ".join([*words[: i % 40], f"other{i}", *words[i % 40 + 1 :]])) for i in range(1000)
    ]
    assert jaccard(rows[0], rows[20]) > NEAR_SIMILARITY
    found = search(rows)
    assert groups(found, len(rows)) == 1
    assert len(found) < len(rows) * (ENOUGH_PAIRS + 4)
    of_each = np.bincount(np.array(list(found)).ravel(), minlength=len(rows))
    assert of_each.min() >= ENOUGH_PAIRS


def nested_template(i: int) -> tuple[str]:
    """Rows that share few or many shingles, by how many of their numbers are the same."""
    text = (
        f"Order of shop {i % 2} in town {i // 2 % 3} by customer of group {i // 6 % 2} in street "
        f"{i // 12 % 3}: please bring the number {i} and the goods to the counter as soon as you "
        f"can because we close {i % 2} early"
    )
    return (text,)


def test_templates_within_templates_are_connected_as_a_comparison_of_all_rows_connects_them() -> (
    None
):
    rows = [nested_template(i) for i in range(700)]
    expected = by_brute_force(rows, NEAR_SIMILARITY)
    found = search(rows)
    assert len(expected) > 20 * len(rows) > len(found)
    assert found.keys() <= expected.keys()
    assert 1 < groups(expected, len(rows)) == groups(found, len(rows))


def test_work_on_templates_within_templates_is_bounded_for_each_row() -> None:
    rows = [nested_template(i) for i in range(3000)]
    with store_of(rows) as store:
        search = searched(store)
    assert search.comparisons < 40 * len(rows)


def groups(pairs: Pairs, rows: int) -> int:
    label = list(range(rows))
    for first, second in pairs:
        old, new = label[first], label[second]
        label = [new if value == old else value for value in label]
    return len(set(label))


def test_up_to_64_pairs_of_copies_are_all_named_and_of_more_each_with_the_first() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    one, other = ("", text), ("", text.replace("thirteen", "fourteen"))
    few = search([one, other] * 4)
    assert few.keys() == set(combinations(range(8), 2))
    many = search([one] * 40 + [other] * 30)
    assert {pair for pair in many if pair[1] < 40} == {(0, i) for i in range(1, 40)}
    assert {pair for pair in many if pair[0] >= 40} == {(40, i) for i in range(41, 70)}
    across = {pair for pair in many if pair[0] < 40 <= pair[1]}
    assert across == {(0, i) for i in range(40, 70)} | {(i, 40) for i in range(40)}
    assert all(many[pair] == pytest.approx(10 / 12) for pair in across)
