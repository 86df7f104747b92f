from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.near import shingles
from llamafarm.data.near.arrays import slices
from llamafarm.data.near.shingles import ShingleStore
from tests.data.near.rows import edited_rows, shingles_of, store_of

WORDS = st.sampled_from(["a", "b", "c", "der", "Hund", "7", "!", "😀😀", ".", " "])
MESSAGES = st.lists(WORDS, max_size=9).map(" ".join)
ROWS = st.lists(st.lists(MESSAGES, max_size=4), max_size=12)


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_a_row_has_one_hash_for_each_of_its_shingles(rows: list[list[str]]) -> None:
    expected = [shingles_of(row) for row in rows]
    with store_of(rows) as store:
        found = [store.shingles(row).tolist() for row in range(len(rows))]
    assert all(each == sorted(set(each)) for each in found)
    assert [len(each) for each in found] == [len(each) for each in expected]
    for one, of_one in zip(found, expected, strict=True):
        for other, of_other in zip(found, expected, strict=True):
            assert len(set(one) & set(other)) == len(of_one & of_other)


@given(ROWS, st.integers(1, 5), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_batches_do_not_change_what_is_stored(
    rows: list[list[str]], batch_rows: int, part_characters: int
) -> None:
    with TemporaryDirectory() as folder, ShingleStore(Path(folder)) as parts:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shingles, "_PART_CHARACTERS", part_characters)
            for begin in range(0, len(rows), batch_rows):
                parts.add(rows[begin : begin + batch_rows])
        parts.finish()
        with store_of(rows) as whole:
            assert len(parts) == len(whole) == len(rows)
            for row in range(len(rows)):
                assert parts.shingles(row).tolist() == whole.shingles(row).tolist()


@given(st.sets(st.integers(0, 199)), st.sampled_from([0, 30, 10**6]))
@settings(max_examples=50, deadline=None)
def test_rows_are_read_together_as_they_are_read_alone(chosen: set[int], gap: int) -> None:
    rows = np.array(sorted(chosen), dtype=np.int64)
    with store_of(edited_rows(1)[:200]) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shingles, "_GAP_SHINGLES", gap)
        together, lengths = store.read(rows)
        alone = [store.shingles(row).tolist() for row in rows.tolist()]
    assert lengths.tolist() == [len(each) for each in alone]
    assert together.tolist() == [value for each in alone for value in each]


def test_a_message_without_words_is_one_shingle_of_its_characters() -> None:
    with store_of([["?!"], ["? !"], ["!?"], ["😀"], ["  \n"], [""], []]) as store:
        found = [store.shingles(row).tolist() for row in range(len(store))]
    assert found[0] == found[1]
    assert len({tuple(each) for each in found[:4]}) == 3
    assert [len(each) for each in found] == [1, 1, 1, 1, 0, 0, 0]


def test_shingles_do_not_reach_across_messages() -> None:
    with store_of([["one two three four"], ["one two", "three four"], ["one two"]]) as store:
        whole, parted, first = (set(store.shingles(row).tolist()) for row in range(3))
    assert not whole & parted
    assert first < parted


def test_nothing_is_added_after_the_end_and_nothing_read_before_it(tmp_path: Path) -> None:
    with ShingleStore(tmp_path) as store:
        store.add([["one"]])
        with pytest.raises(ValueError, match="not finished"):
            store.shingles(0)
        store.finish()
        store.finish()
        with pytest.raises(ValueError, match="finished"):
            store.add([["two"]])


def test_a_file_that_was_cut_short_is_a_fault_and_not_a_row(tmp_path: Path) -> None:
    with ShingleStore(tmp_path) as store:
        store.add([["one two three four"]])
        store.finish()
        (file,) = tmp_path.iterdir()
        file.write_bytes(b"\0\0\0\0")
        with pytest.raises(OSError, match="cut short"):
            store.shingles(0)


@given(st.lists(st.integers(0, 9)), st.integers(1, 20))
def test_slices_are_as_large_as_allowed(weights: list[int], at_most: int) -> None:
    parts = list(slices(np.array(weights, dtype=np.int64), at_most))
    assert [i for part in parts for i in range(len(weights))[part]] == list(range(len(weights)))
    for part in parts:
        assert sum(weights[part]) <= at_most or part.stop - part.start == 1
        if part.stop < len(weights):
            assert sum(weights[part.start : part.stop + 1]) > at_most
