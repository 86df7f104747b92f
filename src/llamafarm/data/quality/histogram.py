"""How many values there are of each size, in little memory however many there are."""

from __future__ import annotations

from collections import Counter

from llamafarm.data.quality.report import LengthStats

# Sizes keep so many leading bits: exact below 256, at most 1 % too low above.
_KEPT_BITS = 8
_EXACT_BELOW = 1 << _KEPT_BITS


def kept_size(size: int) -> int:
    """A size as it is kept: rounded down."""
    shift = size.bit_length() - _KEPT_BITS
    return size >> shift << shift if shift > 0 else size


class Histogram:
    """Counts of whole numbers from 0, to three digits."""

    __slots__ = ("_counts", "largest", "smallest")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.smallest = self.largest = -1

    def add(self, size: int) -> None:
        """Count one value."""
        if size > self.largest:
            self.largest = size
        if size < self.smallest or self.smallest < 0:
            self.smallest = size
        self._counts[size if size < _EXACT_BELOW else kept_size(size)] += 1

    def __len__(self) -> int:
        return self._counts.total()

    def at_least(self, size: int) -> int:
        """How many values are not below this; exact for a kept_size."""
        return sum(count for kept, count in self._counts.items() if kept >= size)

    def quantile(self, fraction: float) -> int:
        """The smallest kept value that this fraction of all values does not exceed; 0 if none."""
        wanted, seen = fraction * len(self), 0
        for kept in sorted(self._counts):
            seen += self._counts[kept]
            if seen >= wanted:
                return max(kept, self.smallest)
        return 0

    def stats(self) -> LengthStats | None:
        """The usual numbers; None when there are no values."""
        if self.largest < 0:
            return None
        median, p95 = self.quantile(0.5), self.quantile(0.95)
        return LengthStats(len(self), self.smallest, median, p95, self.largest)
