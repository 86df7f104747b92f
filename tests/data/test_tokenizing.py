from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from llamafarm.data.tokenizing import ordered_map


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(ordered_map(lambda n: n * n, range(50), workers)) == [n * n for n in range(50)]


def test_only_a_few_items_are_taken_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for n in range(1000):
            taken += 1
            yield n

    results = ordered_map(lambda n: n, items(), 3)
    assert next(results) == 0
    assert taken == 6


def test_workers_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(n: int) -> int:
        both.wait()
        return n

    assert list(ordered_map(meet, range(4), 2)) == [0, 1, 2, 3]


def test_an_error_reaches_the_caller() -> None:
    def fail(n: int) -> int:
        raise ValueError(n)

    with pytest.raises(ValueError, match="0"):
        list(ordered_map(fail, range(9), 3))
