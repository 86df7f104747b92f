"""What each row says, as a set of word 3-shingles: hashes of three words in a row, on disk.

Shingles never reach across messages. A message of fewer than three words is one shingle of its
words; a message without any word (symbols, emoji, punctuation) is one shingle of its characters
without spaces; a blank one has none.

A shingle is kept as 32 bits. Two different ones have the same hash with probability 2^-32, so a
similarity of two rows with n shingles each is off, by about 1/n, with probability n^2 / 2^32: one
in a million for rows of 60 words, and by 0.0001 in 2 % of the pairs of 10,000 words.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np

from llamafarm.data.near.arrays import HALF, Counts, Hashes, Rows, Shingles, expand
from llamafarm.data.near.words import mixed, plain_form, word_hashes

_FILE = "shingles.u32"
_ITEM_BYTES = 4
# A batch is taken in parts of about so many characters, so that memory does not depend on it.
_PART_CHARACTERS = 1 << 20
# Rows that are no further apart in the file are read at once.
_GAP_SHINGLES = 256
_SHINGLE_WEIGHTS = tuple(
    np.uint64(odd) for odd in (0x9FB21C651E98DF25, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
)


class ShingleStore:
    """Shingle hashes of every row, on disk; rows are numbered from 0 in the order of add().

    8 bytes a row stay in memory. A context manager; not for several threads at once. Raises OSError
    where the folder cannot be written or is full.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / _FILE
        self._writer, self._reader = path.open("wb"), path.open("rb", buffering=0)
        self._lengths = array("q", [0])
        self._offsets: Rows | None = None

    def __enter__(self) -> ShingleStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._lengths) - 1

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Append rows, each the texts of its messages."""
        if self._offsets is not None:
            raise ValueError("the store is finished")
        for part in _parts(rows):
            shingles, lengths = _shingles_of(part)
            self._writer.write(shingles.data)
            self._lengths.frombytes(lengths.tobytes())

    def finish(self) -> None:
        """All rows were added; now they can be read."""
        if self._offsets is None:
            self._writer.close()
            self._offsets = np.frombuffer(self._lengths, dtype=np.int64)
            np.cumsum(self._offsets, out=self._offsets)

    def shingles(self, row: int) -> Shingles:
        """Of one row: ascending, each once."""
        return self.read(np.array([row], dtype=np.int64))[0]

    def lengths(self, rows: Rows) -> Counts:
        """How many shingles these rows have."""
        offsets = self._finished()
        return offsets[rows + 1] - offsets[rows]

    def read(self, rows: Rows) -> tuple[Shingles, Counts]:
        """The shingles of some rows, one row after another, and how many each has.

        rows: ascending, each once. Memory: 16 bytes a shingle; a caller with many rows reads them
        in slices (see `slices`).
        """
        offsets = self._finished()
        begins, ends = offsets[rows], offsets[rows + 1]
        gaps = begins[1:] - ends[:-1]
        cuts = np.flatnonzero(gaps > _GAP_SHINGLES)
        if not len(rows):
            return np.empty(0, dtype=np.uint32), ends - begins
        held = self._read_runs(begins[np.append(0, cuts + 1)], ends[np.append(cuts, len(rows) - 1)])
        if (kept := (gaps > 0) & (gaps <= _GAP_SHINGLES)).any():
            skipped = np.cumsum(np.append(0, np.where(kept, gaps, 0)))
            lengths = ends - begins
            held = held[expand(np.cumsum(lengths) - lengths + skipped, lengths)]
        return held, ends - begins

    def _read_runs(self, begins: Rows, ends: Rows) -> Shingles:
        """Parts of the file, one after another."""
        held = np.empty(int((ends - begins).sum()), dtype=np.uint32)
        target = held.data.cast("B")
        filled = 0
        starts, stops = (begins * _ITEM_BYTES).tolist(), (ends * _ITEM_BYTES).tolist()
        for start, stop in zip(starts, stops, strict=True):
            self._reader.seek(start)
            part = target[filled : filled + stop - start]
            if self._reader.readinto(part) != len(part):
                raise OSError(f"{self.folder / _FILE} was cut short while it was in use")
            filled += len(part)
        return held

    def _finished(self) -> Rows:
        if self._offsets is None:
            raise ValueError("the store is not finished")
        return self._offsets

    def close(self) -> None:
        """Let go of the file; its folder is the caller's to remove."""
        self._writer.close()
        self._reader.close()


def _parts(rows: Sequence[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    part: list[Sequence[str]] = []
    held = 0
    for row in rows:
        size = sum(map(len, row))
        if part and held + size > _PART_CHARACTERS:
            yield part
            part, held = [], 0
        part.append(row)
        held += size
    if part:
        yield part


def _shingles_of(rows: Sequence[Sequence[str]]) -> tuple[Shingles, Counts]:
    """The sets of some rows, one after another, each ascending; and their sizes."""
    texts = [plain_form(text) for row in rows for text in row]
    row_of_text = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    words, counts = word_hashes(texts)
    hashes, of_each = _three_in_a_row(words, counts)
    row_of = np.repeat(row_of_text, of_each)
    wordless = [
        (int(row_of_text[i]), _of_characters(texts[i]))
        for i in np.flatnonzero(counts == 0).tolist()
        if not texts[i].isspace() and texts[i]
    ]
    if wordless:
        row_of = np.append(row_of, np.array([row for row, _ in wordless], dtype=np.int64))
        hashes = np.append(hashes, np.array([value for _, value in wordless], dtype=np.uint64))
    keys = (row_of.astype(np.uint64) << HALF) | (hashes >> HALF)
    keys.sort()
    keys = keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys
    sizes = np.bincount((keys >> HALF).astype(np.int64), minlength=len(rows))
    return keys.astype(np.uint32), sizes.astype(np.int64)


def _three_in_a_row(words: Hashes, counts: Counts) -> tuple[Hashes, Counts]:
    """Hashes of the shingles of messages with these numbers of words; and how many each has."""
    ends = np.cumsum(counts)
    last = ends[counts > 0] - 1
    one_before = ends[counts > 1] - 2
    hashes = words * _SHINGLE_WEIGHTS[0]
    for distance, weight in enumerate(_SHINGLE_WEIGHTS[1:], start=1):
        following = np.zeros_like(words)
        following[:-distance] = words[distance:]
        following[last] = 0
        if distance == 2:
            following[one_before] = 0
        hashes += following * weight
    kept = np.ones(len(words), dtype=np.bool_)
    kept[last] = kept[one_before] = False
    # The first word of a short message stands for all of it.
    kept[(ends - counts)[counts > 0]] = True
    return mixed(hashes[kept]), np.where(counts > 0, np.maximum(counts - 2, 1), 0)


def _of_characters(text: str) -> int:
    characters = "".join(text.split())
    digest = blake2b(characters.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
