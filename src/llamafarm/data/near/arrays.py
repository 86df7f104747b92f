"""Names of the arrays that the search is made of, and how runs of unequal length lie in them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Shingles = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Similarity = npt.NDArray[np.float32]

# A 64-bit key of two parts: shift by HALF.
HALF = np.uint64(32)


def expand(begins: Rows, lengths: Counts) -> Rows:
    """The numbers begin, begin + 1, ... (as many as its length) for every begin, in a row."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(begins - (ends - lengths), lengths) + np.arange(total)


def slices(weights: Counts, at_most: int) -> Iterator[slice]:
    """Consecutive slices whose weights sum to no more than this; a heavier item is alone."""
    ends = np.cumsum(weights)
    begin = 0
    while begin < len(weights):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + at_most, side="right")))
        yield slice(begin, end)
        begin = end
