"""The answers that many rows share, found in one pass and in fixed memory."""

from __future__ import annotations

from dataclasses import dataclass

from llamafarm.data.rows import RowRef

_CAPACITY = 512
_SHOWN = 200


@dataclass(slots=True)
class Shared:
    """One answer. rows: at least so many have it; varied: whether more than one prompt leads to it.

    source, text: the first row that is known to have it; text: how it begins.
    """

    rows: int
    prompt: int
    varied: bool
    source: RowRef
    text: str


class FrequentAnswers:
    """Counts answers by their hash (Misra and Gries 1982, with the decrements made in batches).

    A count is too low by at most rows / 512, and every answer with more rows than that is known.
    """

    def __init__(self) -> None:
        self._known: dict[int, Shared] = {}
        self.rows = 0
        self.forgot = False

    def add(self, source: RowRef, prompt: str, answer: str) -> None:
        """One more row."""
        self.rows += 1
        key, asked = hash(answer), hash(prompt)
        known = self._known.get(key)
        if known is not None:
            known.rows += 1
            known.varied = known.varied or known.prompt != asked
            return
        self._known[key] = Shared(1, asked, False, source, answer[:_SHOWN])
        if len(self._known) > 2 * _CAPACITY:
            self._forget()

    def _forget(self) -> None:
        """Keep half: all counts go down by the largest that is not kept."""
        self.forgot = True
        by_rows = sorted(self._known.items(), key=lambda item: -item[1].rows)
        decrement = by_rows[_CAPACITY][1].rows
        self._known = {key: shared for key, shared in by_rows if shared.rows > decrement}
        for shared in self._known.values():
            shared.rows -= decrement

    def distinct(self) -> int:
        """Number of different answers; meaningful unless some were forgotten."""
        return len(self._known)

    def most_frequent(self) -> Shared | None:
        """The answer that most rows have."""
        return max(self._known.values(), key=lambda shared: shared.rows, default=None)
