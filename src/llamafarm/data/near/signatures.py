"""MinHash signatures of sets of shingles, cut into bands, and kept on disk band by band.

The share of equal minima of two sets estimates their Jaccard similarity (Broder 1997). Two rows of
similarity s are compared when all minima of a band are equal, in any band: with probability
1 - (1 - s^5)^25, which is 0.990 at s = 0.7, 0.9989 at 0.75 and 0.55 at 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from llamafarm.data.near.arrays import HALF, Counts, Hashes, Rows, Shingles, slices
from llamafarm.data.near.shingles import ShingleStore
from llamafarm.data.near.words import mixed

BANDS = 25
MINIMA_PER_BAND = 5

_FILE = "bands.u64"
_ITEM_BYTES = 8
_READ_SHINGLES = 1 << 18
# Products of shingles and multipliers that are held at once: what fits into a core's cache.
_PRODUCTS_AT_ONCE = 1 << 19


def multipliers(count: int, salt: int) -> Shingles:
    """Odd numbers: x -> a * x modulo 2^32 is then a permutation of all shingle hashes."""
    numbers = np.arange(1, count + 1, dtype=np.uint64) | np.uint64((salt + 1) << 32)
    return (mixed(numbers) >> HALF).astype(np.uint32) | np.uint32(1)


def minima(shingles: Shingles, lengths: Counts, factors: Shingles) -> Shingles:
    """(factors, rows): the smallest of each row's shingles under each permutation.

    shingles: of the rows, one row after another; lengths: of each row, none 0.
    """
    begins = np.cumsum(lengths) - lengths
    found = np.empty((len(factors), len(lengths)), dtype=np.uint32)
    step = max(1, _PRODUCTS_AT_ONCE // max(1, len(shingles)))
    for begin in range(0, len(factors), step):
        part = slice(begin, begin + step)
        products = np.multiply.outer(factors[part], shingles)
        np.minimum.reduceat(products, begins, axis=1, out=found[part])
    return found


def band_hashes(shingles: Shingles, lengths: Counts) -> Hashes:
    """(BANDS, rows): one 64-bit hash of the minima of each band."""
    factors = multipliers(BANDS * MINIMA_PER_BAND, salt=0)
    weights = mixed(np.arange(1, MINIMA_PER_BAND + 1, dtype=np.uint64))
    found = np.empty((BANDS, len(lengths)), dtype=np.uint64)
    begin = 0
    for part in slices(lengths, _PRODUCTS_AT_ONCE // len(factors)):
        end = begin + int(lengths[part].sum())
        values = minima(shingles[begin:end], lengths[part], factors)
        by_band = values.reshape(BANDS, MINIMA_PER_BAND, -1)
        found[:, part] = mixed((by_band * weights[:, None]).sum(axis=1, dtype=np.uint64))
        begin = end
    return found


def set_digests(store: ShingleStore, rows: Rows) -> Hashes:
    """64 bits of each row's set: two rows with the same shingles have the same. rows: ascending,
    none without shingles.
    """
    digests = np.empty(len(rows), dtype=np.uint64)
    for part in slices(store.lengths(rows), _READ_SHINGLES):
        shingles, lengths = store.read(rows[part])
        hashes = mixed(shingles.astype(np.uint64) + np.uint64(1 << 32))
        digests[part] = np.add.reduceat(hashes, np.cumsum(lengths) - lengths)
    return digests


class BandColumns:
    """The band hashes of some rows, in a file of one column a band. A context manager, which
    removes the file.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._path = folder / _FILE
        self._rows = rows
        self._file = self._path.open("w+b", buffering=0)

    def __enter__(self) -> BandColumns:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._path.unlink()

    def fill(self, store: ShingleStore, rows: Rows, tell: Callable[[int], None]) -> None:
        """Compute all columns. rows: ascending, none without shingles; tell: rows done so far."""
        for part in slices(store.lengths(rows), _READ_SHINGLES):
            hashes = band_hashes(*store.read(rows[part]))
            for band, values in enumerate(hashes):
                self._seek(band, part.start)
                self._file.write(values.data)
            tell(part.stop)

    def column(self, band: int) -> Hashes:
        """The hashes of one band, one a row."""
        values = np.empty(self._rows, dtype=np.uint64)
        self._seek(band, 0)
        if self._file.readinto(values.data) != values.nbytes:
            raise OSError(f"{self._path} was cut short while it was in use")
        return values

    def _seek(self, band: int, row: int) -> None:
        self._file.seek((band * self._rows + row) * _ITEM_BYTES)
