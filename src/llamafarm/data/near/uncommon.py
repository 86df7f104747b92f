"""What tells the rows of a crowded bucket apart: their shingles without those that most share.

Rows made from one template agree in most of their minima, and so fall into the same bucket whatever
else they say. The smallest of the shingles that are not the template's sorts them again.
"""

from __future__ import annotations

import numpy as np

from llamafarm.data.near.arrays import HALF, Counts, Mask, Rows, Shingles, slices
from llamafarm.data.near.shingles import ShingleStore
from llamafarm.data.near.signatures import multipliers

_SAMPLE_ROWS = 128
_READ_SHINGLES = 1 << 19
_SLOT_BITS = 24
_ODD = np.uint32(0x9E3779B1)
_NOTHING = np.uint32(0xFFFFFFFF)


def uncommon_minima(store: ShingleStore, rows: Rows, sizes: Counts, salt: int) -> Shingles:
    """The smallest shingle of each row that at most half of its bucket has, under a permutation
    that salt chooses; 0xFFFFFFFF for a row that has no such shingle.

    rows: bucket after bucket, each row once; sizes: of the buckets. How common a shingle is in a
    bucket is told from its first 128 rows.
    """
    bucket = np.repeat(np.arange(len(sizes)), sizes)
    common = _common(store, rows, sizes, bucket)
    factor = multipliers(1, salt)[0]
    found = np.empty(len(rows), dtype=np.uint32)
    order = np.argsort(rows)
    for part in slices(store.lengths(rows[order]), _READ_SHINGLES):
        members = order[part]
        shingles, lengths = store.read(rows[members])
        values = shingles * factor
        values[common[_slots(shingles, np.repeat(bucket[members], lengths))]] = _NOTHING
        found[members] = np.minimum.reduceat(values, np.cumsum(lengths) - lengths)
    return found


def _common(store: ShingleStore, rows: Rows, sizes: Counts, bucket: Rows) -> Mask:
    """A table of slots: whether a shingle is common in a bucket. Now and then two of them share a
    slot, and an uncommon shingle is left out too, for all rows of its bucket alike.
    """
    table = np.zeros(1 << _SLOT_BITS, dtype=np.bool_)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    sampled = np.flatnonzero(place < _SAMPLE_ROWS)
    weights = np.bincount(bucket[sampled], store.lengths(rows[sampled])).astype(np.int64)
    edges = np.searchsorted(bucket[sampled], np.arange(len(sizes) + 1))
    for part in slices(weights, _READ_SHINGLES):
        members = sampled[edges[part.start] : edges[part.stop]]
        members = members[np.argsort(rows[members])]
        shingles, lengths = store.read(rows[members])
        keys = np.repeat(bucket[members].astype(np.uint64) << HALF, lengths) | shingles
        keys, counts = np.unique(keys, return_counts=True)
        of_bucket = (keys >> HALF).astype(np.int64)
        most = counts * 2 > np.minimum(sizes[of_bucket], _SAMPLE_ROWS)
        table[_slots(keys[most].astype(np.uint32), of_bucket[most])] = True
    return table


def _slots(shingles: Shingles, bucket: Rows) -> Shingles:
    mixed = (shingles ^ (bucket.astype(np.uint32) * _ODD)) * _ODD
    return mixed >> np.uint32(32 - _SLOT_BITS)
