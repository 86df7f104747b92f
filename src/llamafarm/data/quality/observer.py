"""Looks at every row once, in fixed memory, and says what a person should know before training.

Nothing is changed or left out here: what is found is reported.
"""

from __future__ import annotations

from collections import Counter

from llamafarm.data.quality.answers import AnswersCheck
from llamafarm.data.quality.characters import CharactersCheck
from llamafarm.data.quality.languages import LanguageCheck
from llamafarm.data.quality.lengths import LengthCheck
from llamafarm.data.quality.personal_check import PersonalCheck
from llamafarm.data.quality.report import Finding, QualityReport
from llamafarm.data.quality.row import row_of
from llamafarm.data.quality.turns import TurnsCheck
from llamafarm.data.rows import Conversation


class QualityObserver:
    """Sees the rows of all sides in the order of their files.

    pii: whether personal data and secrets are searched for. Examples hide them either way.
    """

    def __init__(self, *, pii: bool = True) -> None:
        self._personal = PersonalCheck() if pii else None
        self._characters, self._turns, self._answers = (
            CharactersCheck(),
            TurnsCheck(),
            AnswersCheck(),
        )
        self._lengths, self._languages = LengthCheck(), LanguageCheck()
        self._sides: Counter[str] = Counter()

    def see(self, conversation: Conversation, side: str) -> None:
        """One good row. side: train, eval or test."""
        self._sides[side] += 1
        row = row_of(conversation, side)
        if self._personal is not None:
            self._personal.see(row)
        self._characters.see(row)
        self._turns.see(row)
        self._answers.see(row)
        self._lengths.see(row)
        self._languages.see(row)

    def report(self) -> QualityReport:
        """What was seen so far. Identifies languages, which takes a second or two."""
        languages = self._languages.languages()
        found: list[Finding] = [
            *(self._personal.findings() if self._personal is not None else []),
            *self._turns.findings(),
            *self._characters.findings(),
            *self._answers.findings(),
            *self._lengths.findings(),
            *languages.findings,
        ]
        skipped = [] if self._personal is not None else ["personal data was not searched for"]
        return QualityReport(
            rows=self._sides.total(),
            sides=tuple(self._sides.items()),
            turns=self._turns.turns(),
            languages=languages.counts,
            languages_rows=languages.rows,
            scripts=self._languages.scripts(),
            prompts=self._lengths.prompts(),
            answers=self._lengths.answers(),
            findings=tuple(sorted(found, key=lambda finding: finding.level != "warning")),
            notes=(*skipped, *languages.notes),
        )
