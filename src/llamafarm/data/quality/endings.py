"""Answers that break off, because whoever made them had no more room."""

from __future__ import annotations

from llamafarm.data.quality.histogram import Histogram, kept_size
from llamafarm.data.quality.longest import Longest
from llamafarm.data.quality.report import Finding
from llamafarm.data.quality.row import QualityRow
from llamafarm.data.quality.tally import Tally
from llamafarm.errors import count_of

_ENDS = frozenset(".!?…。！？।॥؟۔።։\"'”’»›」』)]}）】>`*|:;~")
_ENDED_SHARE, _CUT_SHARE = 0.8, 0.6
_NEAR_LONGEST = 0.8
# The excerpt is taken around the place that is so far before the end.
_END_CHARACTERS = 40
_MIN_CUT_CHARACTERS, _MIN_SAME_LENGTH, _MIN_NEAR_LONGEST = 50, 3, 10
_CUT_ADVICE = (
    "they seem to have been cut where they were made: make them again with more room, "
    "or delete them, for a model learns to stop there"
)


class Endings:
    """Whether answers end as sentences do, by their length."""

    def __init__(self) -> None:
        self._ended, self._open = Histogram(), Histogram()
        self._length, self._cut, self._same_length = 0, Tally(), 0
        self._longest_open = Longest()

    @property
    def longest(self) -> int:
        """Characters of the longest answer."""
        return self._length

    def see(self, row: QualityRow, answer: str) -> None:
        """One more answer, without white space around it."""
        is_open = answer[-1] not in _ENDS
        length = len(answer)
        (self._open if is_open else self._ended).add(length)
        if length > self._length:
            self._length, self._cut, self._same_length = length, Tally(), 0
        if length == self._length:
            self._same_length += 1
        if is_open:
            end = max(0, length - _END_CHARACTERS)
            self._longest_open.offer(length, row.source, answer, end)
            if length == self._length:
                self._cut.add(row.source, answer, end)

    def findings(self) -> list[Finding]:
        """Answers that were cut where their author had no more room."""
        ended, opened = len(self._ended), len(self._open)
        if self._length < _MIN_CUT_CHARACTERS or not ended + opened:
            return []
        return self._at_one_length(ended) or self._near_the_longest(ended, opened)

    def _at_one_length(self, ended: int) -> list[Finding]:
        rest = ended + len(self._open) - self._same_length
        all_cut = self._cut.rows == self._same_length >= _MIN_SAME_LENGTH
        if not all_cut or not rest or ended < _ENDED_SHARE * rest:
            return []
        text = (
            f"{count_of(self._same_length, 'answer')} of exactly {self._length:,} characters, the "
            "longest there are, that break off within a sentence"
        )
        return [self._cut.finding("cut_answer", text, _CUT_ADVICE, "notice")]

    def _near_the_longest(self, ended: int, opened: int) -> list[Finding]:
        limit = kept_size(round(_NEAR_LONGEST * self._length))
        near_open, near_ended = self._open.at_least(limit), self._ended.at_least(limit)
        near = near_open + near_ended
        rest = ended + opened - near
        if near < _MIN_NEAR_LONGEST or near_open < _CUT_SHARE * near:
            return []
        if not rest or ended - near_ended < _ENDED_SHARE * rest:
            return []
        text = (
            f"{near_open:,} of the {near:,} longest answers ({limit:,} characters or more) "
            "break off within a sentence; the others do not"
        )
        examples = self._longest_open.examples(limit)
        return [Finding("cut_answer", near_open, text, examples, _CUT_ADVICE, "notice")]
