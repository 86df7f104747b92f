"""Rows of varied lengths are made from the same text."""

from __future__ import annotations

import numpy as np
from bench.spec import IGNORED_LABEL, Row
from bench.workload import MAX_LENGTH, labelled, rows_of_lengths, varied_lengths

END = 2
ROWS = (
    labelled([10, 11, 12, 20, 21, END], [False, False, False, True, True, True]),
    labelled([13, 14, 30, 31, 32, END], [False, False, True, True, True, True]),
)


def test_labels_are_the_ids_where_trained() -> None:
    assert ROWS[1] == Row((13, 14, 30, 31, 32, END), (IGNORED_LABEL,) * 2 + (30, 31, 32, END))


def test_a_long_answer_runs_on_through_the_next_rows_and_ends_its_turn() -> None:
    (made,) = rows_of_lengths(ROWS, np.array([11]))
    assert made.input_ids == (10, 11, 12, 20, 21, 30, 31, 32, 20, 21, END)
    assert made.labels == (IGNORED_LABEL,) * 3 + made.input_ids[3:]


def test_a_short_row_keeps_its_question_and_ends_its_turn() -> None:
    (made,) = rows_of_lengths(ROWS, np.array([1]))
    assert made.input_ids == (10, 11, 12, 20, END)


def test_every_row_begins_with_its_own_question() -> None:
    made = rows_of_lengths(ROWS, np.array([8, 8, 8]))
    assert [row.input_ids[0] for row in made] == [10, 13, 10]
    assert [len(row.input_ids) for row in made] == [8, 8, 8]


def test_lengths_are_the_same_for_a_seed_and_are_cut() -> None:
    lengths = varied_lengths(2000, seed=1)
    assert (lengths == varied_lengths(2000, seed=1)).all()
    assert lengths.max() == MAX_LENGTH
    assert 80 < np.median(lengths) < 100
