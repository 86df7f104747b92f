from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.near.found import FoundPairs

ROWS = 9
PAIRS = st.tuples(st.integers(0, ROWS - 1), st.integers(0, ROWS - 1))


@given(st.lists(st.sets(PAIRS), max_size=8))
@settings(deadline=None)
def test_pairs_are_held_from_when_they_are_added(portions: list[set[tuple[int, int]]]) -> None:
    found = FoundPairs(ROWS)
    known: dict[tuple[int, int], float] = {}
    for portion in portions:
        pairs = np.array(sorted(portion), dtype=np.int64).reshape(-1, 2)
        held = found.holds(pairs[:, 0], pairs[:, 1])
        assert held.tolist() == [tuple(pair) in known for pair in pairs.tolist()]
        new = pairs[~held]
        similarity = np.arange(len(new), dtype=np.float32) + len(known)
        found.add(new[:, 0], new[:, 1], similarity)
        known |= {
            (one, other): value
            for (one, other), value in zip(new.tolist(), similarity.tolist(), strict=True)
        }
    pairs = found.pairs()
    keys = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    assert dict(zip(keys, pairs.similarity.tolist(), strict=True)) == known
    assert len(pairs) == len(known)
