from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data.groups import merge_groups


@given(
    st.integers(1, 40).flatmap(
        lambda rows: st.tuples(
            st.lists(
                st.lists(st.integers(0, 30), min_size=rows, max_size=rows), min_size=0, max_size=3
            ),
            st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, rows - 1)), max_size=20),
            st.just(rows),
        )
    )
)
def test_rows_are_one_group_when_labels_or_pairs_connect_them(
    drawn: tuple[list[list[int]], list[tuple[int, int]], int],
) -> None:
    labellings, pairs, rows = drawn
    joined = [{row} for row in range(rows)]
    links = [*pairs]
    links += [
        (one, other)
        for labels in labellings
        for one in range(rows)
        for other in range(one)
        if labels[one] == labels[other]
    ]
    for one, other in links:
        joined[one] |= joined[other]
        for row in joined[one]:
            joined[row] = joined[one]
    first, second = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    found = merge_groups(rows, [np.array(labels) for labels in labellings], [(first, second)])
    numbers = {min(joined[row]): None for row in range(rows)}
    assert found.tolist() == [list(numbers).index(min(joined[row])) for row in range(rows)]


def test_every_value_is_a_label_and_a_masked_row_has_none() -> None:
    labels = np.array([0, 5, 0, 7, 5], np.uint64)
    assert merge_groups(5, [labels]).tolist() == [0, 1, 0, 2, 1]
    masked = np.ma.masked_array(labels, labels == 0)
    assert merge_groups(5, [masked]).tolist() == [0, 1, 2, 3, 1]
    nothing = np.ma.masked_array(labels, [True] * 5)
    assert merge_groups(5, [nothing]).tolist() == [0, 1, 2, 3, 4]


def test_a_label_of_two_words_is_compared_as_a_whole() -> None:
    keys = np.array([[1, 2], [1, 3], [2, 2], [1, 2], [1, 3]], np.uint64)
    assert merge_groups(5, [keys]).tolist() == [0, 1, 2, 0, 1]


def test_a_long_chain_of_pairs_is_one_group() -> None:
    rows = 200_000
    path = np.random.default_rng(0).permutation(rows)
    assert merge_groups(rows, [], [(path[:-1], path[1:])]).max() == 0
