"""Rows and stores for these tests, and what the definitions say of rows, by sets of real words."""

from __future__ import annotations

import contextlib
import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from llamafarm.data.near.search import RowPairs
from llamafarm.data.near.shingles import ShingleStore

Row = Sequence[str]
Shingle = tuple[str, ...]


@contextlib.contextmanager
def store_of(rows: Sequence[Row]) -> Iterator[ShingleStore]:
    with TemporaryDirectory() as folder, ShingleStore(Path(folder)) as store:
        store.add(rows)
        store.finish()
        yield store


def shingles_of(row: Row) -> set[Shingle]:
    """For texts of scripts with spaces and without combining marks."""
    found: set[Shingle] = set()
    for text in row:
        plain = unicodedata.normalize("NFKC", text).casefold()
        words = re.findall(r"\w+", plain)
        if words:
            found |= {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
        elif plain.strip():
            found.add(("".join(plain.split()),))
    return found


def jaccard(one: Row, other: Row) -> float:
    a, b = shingles_of(one), shingles_of(other)
    return len(a & b) / len(a | b) if a | b else 0.0


def as_dict(pairs: RowPairs) -> dict[tuple[int, int], float]:
    keys = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    found = dict(zip(keys, pairs.similarity.tolist(), strict=True))
    assert len(found) == len(pairs), "a pair was named twice"
    return found


def edited_rows(seed: int, bases: int = 90, copies: int = 5) -> list[tuple[str, str]]:
    """Rows of 3 to 70 words, each with up to `copies` others that differ in up to 3 words."""
    rng = random.Random(seed)
    vocabulary = [f"word{i}" for i in range(2000)]
    rows = []
    for _ in range(bases):
        base = rng.choices(vocabulary, k=rng.randint(3, 70))
        for _ in range(rng.randint(1, copies)):
            words = list(base)
            for _ in range(rng.randint(0, 3)):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
            rows.append((" ".join(words[: len(words) // 3]), " ".join(words[len(words) // 3 :])))
    rng.shuffle(rows)
    return rows
