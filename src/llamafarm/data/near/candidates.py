"""Which rows are worth comparing: those in one bucket of a band; of a crowded bucket, a few.

In a bucket of up to 64 rows every row is compared with every other one. In a larger one each row is
compared with 2 leaders, and the bucket is then cut into smaller ones by what its rows do not share
(`uncommon`), up to three times; rows that are still crowded are put in order by the same, and each
is compared with the 8 that follow. So there are at most 38 comparisons a row and band, however
alike the rows are. Which rows lead depends on what they say, not on their order in the file.

What this can miss: two near duplicates among many rows of one template, when no leader is near to
both and their uncommon shingles never have the same minimum. They have a chance in every band in
which they share a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llamafarm.data.near.arrays import HALF, Counts, Hashes, Mask, Rows
from llamafarm.data.near.shingles import ShingleStore
from llamafarm.data.near.uncommon import uncommon_minima
from llamafarm.data.near.words import mixed

CROWDED_ROWS = 64
LEADERS = 2
NEIGHBOURS = 8
LEVELS = 3
_SORTED_AT_ONCE = 1 << 18
# The most that a row is compared with others in one band: pairs over rows.
COMPARISONS_PER_ROW = LEADERS * LEVELS + max(CROWDED_ROWS / 2, NEIGHBOURS)

Candidates = tuple[Rows, Rows]


@dataclass(frozen=True, slots=True)
class Field:
    """The rows among which is searched; candidates are indices into it.

    rows: numbers in the store, ascending; digests: of each row's set (`set_digests`).
    """

    store: ShingleStore
    rows: Rows
    digests: Hashes


@dataclass(frozen=True, slots=True)
class _Buckets:
    """members: indices into the field, bucket after bucket; sizes: of the buckets, 2 or more."""

    members: Rows
    sizes: Counts

    def where(self, wanted: Mask) -> _Buckets:
        """Some of the buckets."""
        return _Buckets(self.members[np.repeat(wanted, self.sizes)], self.sizes[wanted])

    def places(self) -> Rows:
        """Of each member in its bucket, from 0."""
        begins = np.cumsum(self.sizes) - self.sizes
        return np.arange(len(self.members)) - np.repeat(begins, self.sizes)

    def numbers(self) -> Rows:
        """Of each member's bucket, from 0."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def candidates(field: Field, column: Hashes, band: int) -> Iterator[Candidates]:
    """Pairs of indices to compare, in arrays no longer than the field. column: see BandColumns."""
    for members in _ranges(column):
        order = members[np.argsort(column[members])]
        yield from _of_buckets(field, _equal(column[order], order), salt=band * (LEVELS + 1) + 1)


def _ranges(column: Hashes) -> Iterator[Rows]:
    """The rows by ranges of their hashes: what is sorted at once does not grow with the rows."""
    number = max(1, -(-len(column) // _SORTED_AT_ONCE))
    width = 2**64 // number + 1
    for begin in range(0, 2**64, width):
        last = min(begin + width, 2**64) - 1
        yield np.flatnonzero((column >= np.uint64(begin)) & (column <= np.uint64(last)))


def _of_buckets(
    field: Field, buckets: _Buckets, salt: int, levels: int = LEVELS
) -> Iterator[Candidates]:
    crowded = buckets.sizes > CROWDED_ROWS
    yield from _within(buckets.where(~crowded), CROWDED_ROWS)
    if not crowded.any():
        return
    buckets = _shuffled(field, buckets.where(crowded), salt)
    yield from _with_leaders(buckets)
    rows = field.rows[buckets.members]
    keys = buckets.numbers().astype(np.uint64) << HALF
    keys |= uncommon_minima(field.store, rows, buckets.sizes, salt)
    order = np.argsort(keys, kind="stable")
    if levels > 1:
        finer = _equal(keys[order], buckets.members[order])
        yield from _of_buckets(field, finer, salt + 1, levels - 1)
    else:
        yield from _within(_Buckets(buckets.members[order], buckets.sizes), NEIGHBOURS)


def _equal(keys: Hashes, members: Rows) -> _Buckets:
    """Buckets of members with equal keys. keys: in order."""
    begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else keys[:0]
    sizes = np.diff(begins, append=len(keys)).astype(np.int64)
    shared = sizes > 1
    return _Buckets(members[np.repeat(shared, sizes)], sizes[shared])


def _shuffled(field: Field, buckets: _Buckets, salt: int) -> _Buckets:
    """The members of each bucket in an order that only their sets and the salt decide."""
    draw = mixed(field.digests[buckets.members] + np.uint64(salt))
    order = np.lexsort((draw, buckets.numbers()))
    return _Buckets(buckets.members[order], buckets.sizes)


def _within(buckets: _Buckets, distance: int) -> Iterator[Candidates]:
    """Each member with those that follow it in its bucket, up to a distance."""
    followers = np.repeat(buckets.sizes, buckets.sizes) - buckets.places() - 1
    position = np.arange(len(buckets.members))
    for step in range(1, distance + 1):
        position = position[followers[position] >= step]
        if not len(position):
            return
        yield buckets.members[position], buckets.members[position + step]


def _with_leaders(buckets: _Buckets) -> Iterator[Candidates]:
    """The first members of each bucket with all that follow them."""
    places = buckets.places()
    begins = np.cumsum(buckets.sizes) - buckets.sizes
    for leader in range(LEADERS):
        others = places > leader
        leaders = np.repeat(buckets.members[begins + leader], buckets.sizes)
        yield leaders[others], buckets.members[others]
