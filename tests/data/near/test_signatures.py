from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.near import signatures
from llamafarm.data.near.signatures import (
    BANDS,
    MINIMA_PER_BAND,
    BandColumns,
    band_hashes,
    minima,
    multipliers,
    set_digests,
)
from tests.data.near.rows import edited_rows, store_of


def test_the_share_of_equal_minima_is_the_jaccard_similarity() -> None:
    random = np.random.default_rng(0)
    factors = multipliers(2000, salt=7)
    for shared in (20, 60, 90):
        values = random.choice(2**32, 200 - shared, replace=False).astype(np.uint32)
        both = np.concatenate([values[:100], values[:shared], values[100:]])
        one, other = minima(both, np.array([100, 100]), factors).T
        assert np.mean(one == other) == pytest.approx(shared / (200 - shared), abs=0.05)


def test_bands_agree_as_often_as_the_formula_says() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 2**32, (2000, 115), dtype=np.uint32)
    pairs = np.concatenate([values[:, :100], values[:, :85], values[:, 100:]], axis=1)
    hashes = band_hashes(pairs.ravel(), np.full(4000, 100))
    equal = hashes[:, ::2] == hashes[:, 1::2]
    similarity = 85 / 115
    assert equal.mean() == pytest.approx(similarity**MINIMA_PER_BAND, abs=0.01)
    assert equal.any(axis=0).mean() == pytest.approx(1 - (1 - equal.mean()) ** BANDS, abs=0.005)


@given(st.integers(1, 60), st.sampled_from([1, 50, 1000, 10**4]))
@settings(max_examples=25, deadline=None)
def test_how_much_is_computed_at_once_changes_nothing(rows: int, products: int) -> None:
    lengths = np.random.default_rng(rows).integers(1, 9, rows)
    shingles = np.random.default_rng(rows).integers(0, 2**32, lengths.sum(), dtype=np.uint32)
    whole = band_hashes(shingles, lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "_PRODUCTS_AT_ONCE", products)
        assert np.array_equal(band_hashes(shingles, lengths), whole)


def test_columns_on_disk_are_the_band_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "_READ_SHINGLES", 200)
    told: list[int] = []
    with store_of(edited_rows(1)) as store:
        rows = np.arange(0, len(store), 2)
        expected = band_hashes(*store.read(rows))
        with BandColumns(tmp_path, len(rows)) as columns:
            columns.fill(store, rows, told.append)
            for band in range(BANDS):
                assert np.array_equal(columns.column(band), expected[band])
    assert told[-1] == len(rows)
    assert not list(tmp_path.iterdir())


def test_equal_sets_have_equal_digests() -> None:
    rows = [("one two three four",), ("ONE two, three four!",), ("one two three",), ("x", "y")]
    with store_of([*rows, ("y", "x")]) as store:
        digests = set_digests(store, np.arange(5)).tolist()
    assert digests[0] == digests[1]
    assert digests[3] == digests[4]
    assert len(set(digests)) == 3
