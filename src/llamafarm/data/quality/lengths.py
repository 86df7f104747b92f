"""How long the rows are, and which of them are far longer than the rest."""

from __future__ import annotations

from llamafarm.data.quality.histogram import Histogram, kept_size
from llamafarm.data.quality.longest import Longest
from llamafarm.data.quality.report import Finding, LengthStats
from llamafarm.data.quality.row import QualityRow
from llamafarm.errors import count_of

# A row is far longer than the rest when it has ten times the median, and lies three times the
# distance of the quartiles above the upper one, both on a scale of ratios.
_TIMES_MEDIAN = 10
_QUARTILE_DISTANCES = 3
_MIN_ROWS = 20


class LengthCheck:
    """Characters of prompts, answers and whole rows."""

    def __init__(self) -> None:
        self._prompts, self._answers, self._rows = Histogram(), Histogram(), Histogram()
        self._longest = Longest()

    def see(self, row: QualityRow) -> None:
        """One more row."""
        if row.prompt_characters:
            self._prompts.add(row.prompt_characters)
        if row.learnt:
            self._answers.add(len(row.learnt))
        self._rows.add(len(row.text))
        self._longest.offer(len(row.text), row.source, row.text)

    def prompts(self) -> LengthStats | None:
        """Of all that is read but not learnt."""
        return self._prompts.stats()

    def answers(self) -> LengthStats | None:
        """Of all that is learnt."""
        return self._answers.stats()

    def findings(self) -> list[Finding]:
        """Rows that are far longer than the rest, the longest first."""
        if len(self._rows) < _MIN_ROWS:
            return []
        limit = self._limit()
        rows = self._rows.at_least(limit)
        if not rows:
            return []
        text = (
            f"{count_of(rows, 'row')} of {limit:,} characters or more, "
            f"far beyond the rest: half of the rows have {self._rows.quantile(0.5):,} or fewer"
        )
        advice = (
            "look at these rows: split or shorten them, "
            "or set max_length so that they are cut where you want it"
        )
        return [Finding("long_row", rows, text, self._longest.examples(limit), advice, "notice")]

    def _limit(self) -> int:
        lower, median, upper = (max(1, self._rows.quantile(q)) for q in (0.25, 0.5, 0.75))
        far = upper * (upper / lower) ** _QUARTILE_DISTANCES
        return kept_size(round(max(_TIMES_MEDIAN * median, far)))
