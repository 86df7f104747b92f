"""Answers from which a model learns the wrong thing: one answer to everything, an echo of the
question, a sentence that breaks off, a refusal.
"""

from __future__ import annotations

import re

from llamafarm.data.quality.excerpt import excerpt
from llamafarm.data.quality.frequent import FrequentAnswers, Shared
from llamafarm.data.quality.histogram import Histogram, kept_size
from llamafarm.data.quality.longest import Longest
from llamafarm.data.quality.report import Finding, RowExample
from llamafarm.data.quality.row import QualityRow
from llamafarm.data.quality.tally import Tally
from llamafarm.errors import count_of

_MANY_SHARE, _MANY_ROWS = 0.2, 20
# Few different answers of a few words are labels: their shares are the task's.
_LABEL_CHARACTERS, _LABEL_ROWS = 40, 10
_MOST = 0.5
_ECHO_CHARACTERS = 40

_ENDS = frozenset(".!?…。！？।॥؟۔።։\"'”’»›」』)]}）】>`*|:;~")
_ENDED_SHARE, _CUT_SHARE = 0.8, 0.6
_NEAR_LONGEST = 0.8
_SHOWN_OF_END = 60
_MIN_CUT_CHARACTERS, _MIN_SAME_LENGTH, _MIN_NEAR_LONGEST = 50, 3, 10

_NAMES_ITSELF_ELSEWHERE = ("modèle", "’IA", "языковая", "интеллект", "人工智能", "言語モデル")
_BOILERPLATE = re.compile(
    r"as an? (?:large )?(?:ai )?(?:language model|ai|artificial intelligence)\b"
    r"|i(?:'m| am) (?:just )?an ai\b|(?:trained|developed|created|made) by openai"
    r"|my (?:knowledge|training) cutoff"
    r"|en tant que modèle de langage|en tant qu'ia\b|como (?:un )?modelo de lenguaje"
    r"|como (?:um )?modelo de linguagem|come modello linguistico"
    r"|als (?:ein )?(?:ki-|großes )?(?:sprachmodell|ki-modell|künstliche intelligenz)"
    r"|как (?:языковая модель|искусственный интеллект)"
    r"|作为(?:一个|一名)?(?:人工智能|ai)|言語モデルとして"
)
_REFUSAL = re.compile(
    r"(?:i'm|i am) (?:very |really |so )?sorry,? but|sorry,? (?:but )?i (?:can|am|'m)"
    r"|i (?:must )?apologi[sz]e,? but"
    r"|(?:unfortunately,? )?i(?: can ?not| can't| am unable to|'m unable to| am not able to"
    r"|'m not able to| won't) (?:help|assist|provide|fulfil|comply|answer|give|create|write"
    r"|generate|discuss|engage|support|do that)"
    r"|je suis désolée?,? mais|désolée?,? mais je|es tut mir leid,? aber|leider kann ich"
    r"|lo siento,? pero|desculpe,? mas|mi dispiace,? ma|извините,? но|к сожалению,? я не могу"
    r"|很?抱歉，?我|对不起，?我|申し訳ありませんが"
)
_HEAD = 80


class AnswersCheck:
    """Looks at the last answer of each row; for boilerplate, at all that is learnt."""

    def __init__(self) -> None:
        self._frequent = FrequentAnswers()
        self._lengths = Histogram()
        self._endings = _Endings()
        self._short, self._echoes = Tally(), Tally()
        self._boilerplate, self._refusals = Tally(), Tally()

    def see(self, row: QualityRow) -> None:
        """One more row."""
        if (at := boilerplate_in(row.learnt)) >= 0:
            self._boilerplate.add(row.source, row.learnt, at)
        if row.answer is None or not (answer := row.answer.strip()):
            return
        self._frequent.add(row.source, row.prompt, answer)
        self._lengths.add(len(answer))
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
        return few and self._lengths.quantile(0.5) <= _LABEL_CHARACTERS

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


def boilerplate_in(text: str) -> int:
    """Where a chatbot speaks of itself, or -1."""
    if not _may_name_itself(text):
        return -1
    found = _BOILERPLATE.search(text.lower().replace("’", "'"))
    return found.start() if found else -1


def _may_name_itself(text: str) -> bool:
    """Whether the phrases need to be searched for: each holds one of these."""
    return (
        "AI" in text
        or "odel" in text
        or "ntelligen" in text
        or "cutoff" in text
        or "KI-" in text
        or "'IA" in text
        or (not text.isascii() and any(word in text for word in _NAMES_ITSELF_ELSEWHERE))
    )


def is_refusal(answer: str) -> bool:
    """Whether an answer begins as refusals do."""
    return _REFUSAL.match(answer[:_HEAD].lower().replace("’", "'")) is not None


def is_echo(prompt: str, answer: str) -> bool:
    """Whether an answer is the prompt, or begins with the whole of a long one."""
    return answer.startswith(prompt) and (
        len(prompt) >= _ECHO_CHARACTERS or len(prompt) == len(answer)
    )


class _Endings:
    """Whether answers end as sentences do, by their length."""

    def __init__(self) -> None:
        self._ended, self._open = Histogram(), Histogram()
        self._length, self._cut, self._same_length = 0, Tally(), 0
        self._longest_open = Longest()

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
            self._longest_open.offer(length, row.source, answer[-_SHOWN_OF_END:])
            if length == self._length:
                self._cut.add(row.source, answer[-_SHOWN_OF_END:])

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


_CUT_ADVICE = (
    "they seem to have been cut where they were made: make them again with more room, "
    "or delete them, for a model learns to stop there"
)
