"""Rows that belong together: the connected components of what they share.

Everything is an array with one entry a row, so that ten million rows fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def merge_groups(
    rows: int,
    labellings: Sequence[NDArray[Any]],
    pairs: Sequence[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]] = (),
) -> NDArray[np.int64]:
    """The group of every row, (rows,): rows share a group that share a label in any labelling, or
    are a pair, directly or through others. Groups are numbered by first appearance.

    labellings: (rows,) of any type that can be sorted, or (rows, words) where a label is several
    words, as 16-byte keys are. A row without a label is masked (`numpy.ma.masked_array`): every
    value, 0 too, is a label. pairs: (first rows, second rows).
    """
    links = [_links(labels) for labels in labellings]
    links += [
        (np.asarray(first, np.int64), np.asarray(second, np.int64)) for first, second in pairs
    ]
    return _number_roots(_join(rows, links))


def _links(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every row that repeats a label, and the first row that has it."""
    mask = np.ma.getmask(labels)
    plain = np.ma.getdata(labels)
    rows = np.arange(len(plain))
    if mask is not np.ma.nomask:
        rows = np.flatnonzero(~mask.reshape(len(plain), -1).any(axis=1))
        plain = plain[rows]
    if len(rows) == 0:
        return rows, rows
    words = plain.reshape(len(plain), -1)
    order = np.argsort(plain, kind="stable") if plain.ndim == 1 else np.lexsort(words.T[::-1])
    ordered = words[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[starts][np.cumsum(starts) - 1]
    return rows[order[~starts]], rows[first[~starts]]


def _join(
    rows: int, links: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> NDArray[np.int64]:
    """The smallest row that each row is linked to, itself included.

    Every round hooks each root that has a smaller neighbour to the smallest one and shortens all
    paths to one step: at least half of the unfinished components vanish, so that there are at most
    log2(rows) rounds. (After Shiloach and Vishkin, J. Algorithms 3, 1982.)
    """
    root = np.arange(rows)
    if not links:
        return root
    one = np.concatenate([first for first, _ in links])
    other = np.concatenate([second for _, second in links])
    while len(one):
        low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
        apart = low != high
        one, other = one[apart], other[apart]
        np.minimum.at(root, high[apart], low[apart])
        _shorten(root)
    return root


def _shorten(root: NDArray[np.int64]) -> None:
    """Let every entry point at the end of its path, in place."""
    while not np.array_equal(further := root[root], root):
        root[:] = further


def _number_roots(root: NDArray[np.int64]) -> NDArray[np.int64]:
    numbers = np.cumsum(root == np.arange(len(root))) - 1
    numbered: NDArray[np.int64] = numbers[root]
    return numbered
