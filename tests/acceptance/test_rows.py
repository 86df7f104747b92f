"""The table itself: nothing in it is invented, and nothing is left out unseen."""

from __future__ import annotations

import pytest

from .rows import ROWS, TESTS, Marked, Row, marked_tests, names_of_tests, render

by_lines = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.lines)
by_name = pytest.mark.parametrize("test", marked_tests(), ids=lambda test: test.name)


@by_lines
def test_a_row_is_either_covered_or_open(row: Row) -> None:
    covered = bool(row.elsewhere) or any(test.lines & row.numbers for test in marked_tests())
    assert covered != bool(row.open), "covered and open" if covered else "neither"
    assert not (row.open and row.later)


@pytest.mark.parametrize("name", sorted({name for row in ROWS for name in row.elsewhere}))
def test_a_test_that_is_named_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert function in names_of_tests(TESTS / file)


@by_name
def test_every_test_of_this_folder_names_lines_that_have_a_row(test: Marked) -> None:
    assert test.lines, "mark it with @pytest.mark.seed(line)"
    assert test.lines <= frozenset().union(*(row.numbers for row in ROWS))


def test_no_two_rows_are_the_same() -> None:
    assert len({row.lines for row in ROWS}) == len(ROWS)


def test_the_printed_table_names_every_row_and_every_test() -> None:
    text = render()
    assert all(row.says in text for row in ROWS)
    assert all(test.name in text for test in marked_tests())
