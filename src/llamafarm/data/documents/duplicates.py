"""Rows that say the same as an earlier one, or nearly: which are dropped, and for which."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np

from llamafarm.data.documents.found import FoundRow
from llamafarm.data.near.search import ENOUGH_PAIRS, NEAR_SIMILARITY, near_pairs
from llamafarm.data.near.shingles import ShingleStore

_ROWS_AT_ONCE = 256
_DIGEST_BYTES = 16


class ExactDuplicates:
    """Rows are equal that differ only in white space, case and Unicode form."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}

    def first_equal(self, row: FoundRow, index: int) -> int:
        """The number of the first row that says the same; `index`, the row's own, where none
        does.
        """
        digest = blake2b(digest_size=_DIGEST_BYTES)
        for text in row.texts():
            digest.update(_normal(text).encode("utf-8", "surrogatepass") + b"\0")
        return self._first.setdefault(digest.digest(), index)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


class NearDuplicates:
    """Takes rows one after the other, then finds those that are dropped. A context manager.

    folder: an empty directory for what is kept on disk.
    """

    def __init__(self, folder: Path) -> None:
        self._store = ShingleStore(folder)
        self._waiting: list[tuple[str, ...]] = []

    def __enter__(self) -> NearDuplicates:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._store.close()

    def add(self, row: FoundRow) -> None:
        """The next row; they are numbered from 0."""
        self._waiting.append(tuple(row.texts()))
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._hand_over()

    def dropped(self) -> Iterator[tuple[int, int, float]]:
        """Rows that nearly repeat an earlier one which is kept: (row, the earlier one, similarity).

        Ascending. The similarity is that of the sets of word 3-shingles (see near). Of a group the
        first row is kept; a row that resembles dropped ones only stays, except in large groups, of
        which near_pairs does not name every pair.
        """
        self._hand_over()
        self._store.finish()
        pairs = near_pairs(self._store, np.arange(len(self._store)), threshold=NEAR_SIMILARITY)
        pairs_of = np.bincount(pairs.first, minlength=len(self._store))
        pairs_of += np.bincount(pairs.second, minlength=len(self._store))
        order = np.lexsort((pairs.first, pairs.second))
        gone = np.zeros(len(self._store), dtype=np.bool_)
        for place in order:
            first, second = int(pairs.first[place]), int(pairs.second[place])
            settled = gone[first] and pairs_of[second] < ENOUGH_PAIRS
            if not gone[second] and not settled:
                gone[second] = True
                yield second, first, float(pairs.similarity[place])

    def _hand_over(self) -> None:
        self._store.add(self._waiting)
        self._waiting = []
