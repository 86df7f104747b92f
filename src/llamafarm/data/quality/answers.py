"""Answers from which a model learns the wrong thing: one answer to everything, an echo of the
question, a sentence that breaks off, a refusal.
"""

from __future__ import annotations

from llamafarm.data.quality.endings import Endings
from llamafarm.data.quality.excerpt import excerpt
from llamafarm.data.quality.frequent import FrequentAnswers, Shared
from llamafarm.data.quality.phrases import boilerplate_in, is_refusal
from llamafarm.data.quality.report import Finding, RowExample
from llamafarm.data.quality.row import QualityRow
from llamafarm.data.quality.tally import Tally
from llamafarm.errors import count_of

_MANY_SHARE, _MANY_ROWS = 0.2, 20
# Few different answers of a few words are labels: their shares are the task's.
_LABEL_CHARACTERS, _LABEL_ROWS = 40, 10
_MOST = 0.5
_ECHO_CHARACTERS = 40


class AnswersCheck:
    """Looks at the last answer of each row; for boilerplate, at all that is learnt."""

    def __init__(self) -> None:
        self._frequent = FrequentAnswers()
        self._endings = Endings()
        self._short, self._echoes = Tally(), Tally()
        self._boilerplate, self._refusals = Tally(), Tally()

    def see(self, row: QualityRow) -> None:
        """One more row."""
        if (at := boilerplate_in(row.learnt)) >= 0:
            self._boilerplate.add(row.source, row.learnt, at)
        if row.answer is None or not (answer := row.answer.strip()):
            return
        self._frequent.add(row.source, row.prompt, answer)
        self._endings.see(row, answer)
        if len(answer) == 1:
            self._short.add(row.source, row.text)
        prompt = row.prompt.strip()
        if prompt and is_echo(prompt, answer):
            self._echoes.add(row.source, answer)
        if is_refusal(answer):
            self._refusals.add(row.source, answer)

    def findings(self) -> list[Finding]:
        """What there is of each."""
        return [
            *self._shared(),
            *self._echo(),
            *self._one_character(),
            *self._endings.findings(),
            *self._phrases(),
        ]

    def _shared(self) -> list[Finding]:
        rows, shared = self._frequent.rows, self._frequent.most_frequent()
        if shared is None or not shared.varied:
            return []
        every = shared.rows == rows
        if not every and (self._are_labels() or not _many(shared.rows, rows)):
            return []
        least = "at least " if self._frequent.forgot else ""
        text = (
            f"all {rows:,} answers are the same"
            if every
            else f"{least}{count_of(shared.rows, 'row')} ({shared.rows / rows:.0%}) "
            "with one and the same answer to different prompts"
        )
        advice = "a model learns to say this whatever it is asked: delete all but a few of the rows"
        return [Finding("same_answer", shared.rows, text, (_example(shared),), advice, "warning")]

    def _are_labels(self) -> bool:
        few = not self._frequent.forgot
        few = few and self._frequent.distinct() * _LABEL_ROWS <= self._frequent.rows
        return few and self._endings.longest <= _LABEL_CHARACTERS

    def _echo(self) -> list[Finding]:
        if not self._echoes.rows:
            return []
        text = f"{count_of(self._echoes.rows, 'row')} whose answer repeats the prompt"
        advice = "check which field is the answer (dataset.columns), or cut the prompt out of it"
        return [self._echoes.finding("repeated_prompt", text, advice, "warning")]

    def _one_character(self) -> list[Finding]:
        if not 0 < self._short.rows <= _MOST * self._frequent.rows:
            return []
        text = f"{count_of(self._short.rows, 'row')} whose answer is a single character"
        return [
            self._short.finding("short_answer", text, "complete or delete these rows", "notice")
        ]

    def _phrases(self) -> list[Finding]:
        found = []
        if self._boilerplate.rows:
            text = f"{count_of(self._boilerplate.rows, 'row')} in which a chatbot names itself"
            advice = (
                "delete these rows, or cut the phrase out: "
                "data_preprocessing.remove_patterns: ['As an AI language model, ']"
            )
            found.append(self._boilerplate.finding("boilerplate", text, advice, "notice"))
        if self._refusals.rows:
            text = f"{count_of(self._refusals.rows, 'row')} whose answer is a refusal"
            advice = "delete these rows unless the model is to refuse such questions"
            found.append(self._refusals.finding("refusal", text, advice, "notice"))
        return found


def _many(some: int, rows: int) -> bool:
    return some >= _MANY_ROWS and some > _MANY_SHARE * rows


def _example(shared: Shared) -> RowExample:
    return RowExample(shared.source, excerpt(shared.text))


def is_echo(prompt: str, answer: str) -> bool:
    """Whether an answer is the prompt, or begins with the whole of a long one."""
    return answer.startswith(prompt) and (
        len(prompt) >= _ECHO_CHARACTERS or len(prompt) == len(answer)
    )
