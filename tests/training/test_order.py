"""The data order is a function of seed, epoch and position."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamafarm.planning.plan import BatchPlan
from llamafarm.training.order import DataOrder, step_seed


def order(
    rows: int, micro: int, accumulation: int, *, shuffle: bool = True, seed: int = 1
) -> DataOrder:
    per_epoch = -(-rows // (micro * accumulation))
    return DataOrder(rows, BatchPlan(micro, accumulation, 1, per_epoch, 99, 1.0, shuffle, 0), seed)


@given(rows=st.integers(1, 60), micro=st.integers(1, 7), accumulation=st.integers(1, 5))
def test_every_epoch_holds_every_row_once(rows: int, micro: int, accumulation: int) -> None:
    per_epoch = -(-rows // (micro * accumulation))
    data = order(rows, micro, accumulation)
    for epoch in range(2):
        steps = [data.step(epoch * per_epoch + i + 1) for i in range(per_epoch)]
        assert sorted(row for step in steps for row in step.rows) == list(range(rows))
        assert steps[-1].epoch == epoch + 1
        assert all(len(batch) <= micro for step in steps for batch in step.micro_batches)


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    forwards = order(37, 4, 2)
    taken = [forwards.step(s) for s in range(1, 16)]
    backwards = order(37, 4, 2)
    assert [backwards.step(s) for s in range(15, 0, -1)] == taken[::-1]


def test_epochs_and_seeds_differ_and_no_shuffle_keeps_the_file_order() -> None:
    data = order(37, 37, 1)
    assert data.step(1).rows != data.step(2).rows
    assert data.step(1).rows != order(37, 37, 1, seed=2).step(1).rows
    plain = order(37, 37, 1, shuffle=False)
    assert plain.step(1).rows == plain.step(2).rows == tuple(range(37))


def test_the_micro_batches_of_a_step_do_not_change_its_rows() -> None:
    assert order(37, 8, 1).step(3).rows == order(37, 2, 4).step(3).rows


def test_each_step_has_its_own_random_stream() -> None:
    seeds = {step_seed(seed, step) for seed in (1, 2) for step in range(1000)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
