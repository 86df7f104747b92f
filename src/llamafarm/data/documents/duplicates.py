"""Rows that say the same as an earlier one, or nearly: which are dropped, and for which."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from llamafarm.data.documents.found import FoundRow
from llamafarm.data.groups import merge_groups
from llamafarm.data.near.pairs import RowPairs, jaccard, shared_counts
from llamafarm.data.near.search import ENOUGH_PAIRS, NEAR_SIMILARITY, near_pairs
from llamafarm.data.near.shingles import ShingleStore
from llamafarm.data.unicode_form import normalised

_ROWS_AT_ONCE = 256
_MOST_COMPARED = 64
_DIGEST_BYTES = 16


class ExactDuplicates:
    """Rows are equal that differ only in white space, case and Unicode form of what they say."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}

    def first_equal(self, row: FoundRow, index: int) -> int:
        """The number of the first row that says the same; `index`, the row's own, where none
        does.
        """
        digest = _digest((*row.texts(), *row.beside), _DIGEST_BYTES)
        return self._first.setdefault(digest, index)


def _digest(said: Iterable[str], size: int) -> bytes:
    digest = blake2b(digest_size=size)
    for text in said:
        normal = " ".join(normalised("NFC", text).casefold().split())
        digest.update(normal.encode("utf-8", "surrogatepass") + b"\0")
    return digest.digest()


class NearDuplicates:
    """Takes rows one after the other, then finds those that are dropped. A context manager.

    folder: an empty directory for what is kept on disk.
    """

    def __init__(self, folder: Path) -> None:
        self._store = ShingleStore(folder)
        self._waiting: list[tuple[str, ...]] = []
        self._beside = array("q")

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
        beside = _digest(row.beside, self._beside.itemsize)
        self._beside.append(int.from_bytes(beside, signed=True))
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._hand_over()

    def dropped(self) -> Iterator[tuple[int, int, float]]:
        """Rows that nearly repeat an earlier one which is kept: (row, the earlier one, similarity).

        Ascending. The similarity is that of the sets of word 3-shingles (see near); rows that hold
        different things beside their texts are not compared. Of rows that nearly repeat each other
        the first is kept; a row that repeats dropped ones only stays.
        """
        self._hand_over()
        self._store.finish()
        pairs = near_pairs(self._store, np.arange(len(self._store)))
        yield from _Choice(self._store, pairs, np.array(self._beside, np.int64)).dropped()

    def _hand_over(self) -> None:
        self._store.add(self._waiting)
        self._waiting = []


class _Choice:
    """Which rows of the pairs are dropped. beside: what each row holds beside its texts, as a
    number.

    near_pairs does not name every pair of a large group: a row of one is also compared with the
    rows that are kept of its group.
    """

    def __init__(self, store: ShingleStore, pairs: RowPairs, beside: npt.NDArray[np.int64]) -> None:
        rows = len(store)
        order = np.lexsort((pairs.first, pairs.second))
        self._store, self._beside = store, beside
        self._first, self._second = pairs.first[order], pairs.second[order]
        self._similarity = pairs.similarity[order]
        pairs_of = np.bincount(pairs.first, minlength=rows)
        pairs_of += np.bincount(pairs.second, minlength=rows)
        self._in_large_group = pairs_of >= ENOUGH_PAIRS
        self._group = merge_groups(rows, (), [(pairs.first, pairs.second)])
        self._gone = np.zeros(rows, dtype=np.bool_)
        self._kept: dict[tuple[int, int], list[int]] = {}

    def dropped(self) -> Iterator[tuple[int, int, float]]:
        """(row, the earlier row that is kept, similarity), ascending."""
        in_pairs = np.union1d(self._first, self._second)
        begins = np.searchsorted(self._second, in_pairs, "left").tolist()
        ends = np.searchsorted(self._second, in_pairs, "right").tolist()
        for row, begin, end in zip(in_pairs.tolist(), begins, ends, strict=True):
            found = self._named(row, begin, end) or self._in_group(row)
            if found is not None:
                self._gone[row] = True
                yield row, *found

    def _named(self, row: int, begin: int, end: int) -> tuple[int, float] | None:
        """The first kept row among the earlier ones that a row is paired with."""
        for place in range(begin, end):
            first = int(self._first[place])
            if not self._gone[first] and self._beside[first] == self._beside[row]:
                return first, float(self._similarity[place])
        return None

    def _in_group(self, row: int) -> tuple[int, float] | None:
        """A kept row of the same large group that this row nearly repeats; else it is kept too."""
        if not self._in_large_group[row]:
            return None
        kept = self._kept.setdefault((int(self._group[row]), int(self._beside[row])), [])
        if kept:
            others = np.array(kept[:_MOST_COMPARED], dtype=np.int64)
            mine = np.full_like(others, row)
            sizes = self._store.lengths(others), self._store.lengths(mine)
            similarity = jaccard(shared_counts(self._store, others, mine), *sizes)
            best = int(similarity.argmax())
            if similarity[best] >= NEAR_SIMILARITY:
                return int(others[best]), float(similarity[best])
        kept.append(row)
        return None
