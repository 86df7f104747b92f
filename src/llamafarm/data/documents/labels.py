"""Who says a line: `Q:`, `**Answer 3:**`, `User:`; told by its first word and a colon."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llamafarm.data.documents.word_set import word_set

LabelKind = Literal["question", "answer", "input", "user", "assistant", "system"]

# A label ends within so many characters, so that no pattern meets a long line.
_LABEL_CHARS = 90
_NAMES: Mapping[LabelKind, str] = {
    "question": "q, question, faq, prompt, instruction, frage, pregunta, pergunta, domanda, "
    "vraag, pytanie, вопрос, 问, 问题, 問, 質問, 질문",
    "answer": "a, ans, answer, correct answer, response, output, completion, antwort, réponse, r, "
    "respuesta, resposta, risposta, antwoord, odpowiedź, ответ, 答, 答案, 回答, 답변",
    "input": "input, context",
    "user": "user, human, customer, client, patient, student, learner, caller, visitor, "
    "interviewer, me",
    "assistant": "assistant, ai, ai assistant, bot, chatbot, gpt, agent, support agent, "
    "support, customer support, customer service, representative, rep, advisor, adviser, "
    "doctor, dr, nurse, physician, pharmacist, therapist, teacher, tutor, instructor, librarian, "
    "interviewee, candidate, expert",
    "system": "system, system prompt",
}
_KINDS: Mapping[str, LabelKind] = {
    name.strip(): kind for kind, names in _NAMES.items() for name in names.split(",")
}
_QUESTION_COLUMNS = word_set("q question questions query prompt instruction faq frage")
_ANSWER_COLUMNS = word_set("a answer answers response reply completion output antwort")
_QUESTION_WORDS = frozenset({"question", "frage", "pregunta", "pergunta", "domanda", "вопрос"})
_ANSWER_WORDS = frozenset({"answer", "response", "antwort", "respuesta", "resposta", "ответ"})

_LABEL = re.compile(
    r"""
    (?:>[ ]?){0,5}                                     # quoted
    (?:[-*+•][ ]{1,3}|\(?\d{1,4}[.)][ ]{1,3})?         # an item of a list
    (?:\[?\d{1,2}:\d\d(?::\d\d)?(?:[ ]?[AaPp][Mm])?\]?[ ]?[-–]?[ ]?)?  # the time of day
    (?P<mark>[*_]{0,3})
    (?P<name>[^\W\d_][^\W\d_]*(?:[ ][^\W\d_]+){0,2})
    [ ]?(?P<number>[#(]?\d{0,4}\)?)
    (?P<closed>[*_]{0,3})[ ]?(?P<separator>[:：.)])(?P<closed_after>[*_]{0,3})
    (?=\s|$|(?<=[:：*_]))
    """,
    re.VERBOSE,
)
# A pair on one line: the answer follows what ends a question.
_SECOND_LABEL = re.compile(
    r"(?<=[.?!…？！。])[*_]{0,3}\s{1,20}(?=[*_]{0,3}(?:Q|A|Question|Answer)\s?\d{0,4}\s?[*_]{0,3}:)"
)


@dataclass(frozen=True, slots=True)
class Label:
    """rest: what the line says after it; by_colon: not by `Q.` or `Q1)`, which may be a list."""

    kind: LabelKind
    rest: str
    by_colon: bool = True


def read_label(text: str) -> Label | None:
    """The label at the start of a line, or None."""
    text = text.lstrip()
    head = text[:_LABEL_CHARS]
    match = _LABEL.match(head) if _may_be_label(head) else None
    if match is None:
        return None
    name = match["name"].casefold()
    kind = _KINDS.get(name)
    by_colon = match["separator"] in ":："
    if kind is None or not (by_colon or _is_short(match["name"], match["number"])):
        return None
    rest = text[match.end() :]
    mark = match["mark"]
    if mark and not match["closed"] and not match["closed_after"]:
        rest = rest.replace(mark, "", 1)
    return Label(kind, rest.strip(), by_colon)


def _may_be_label(head: str) -> bool:
    """Says no quickly to most lines."""
    return ":" in head or "：" in head or head.lstrip("*_>-+•(0123456789.) ")[:1] in ("Q", "q", "A")


def _is_short(name: str, number: str) -> bool:
    """`Q.`, `A)`, `Question 3.`: without a colon, a capital letter or a number is needed."""
    return name in ("Q", "A") or (bool(number) and _KINDS.get(name.casefold()) == "question")


def read_speaker_heading(text: str) -> LabelKind | None:
    """The kind of a heading that is nothing but a label, as `User` or `Response:`."""
    bare = text.strip("*_ ").rstrip(":").strip("*_ ").casefold()
    kind = _KINDS.get(bare) if len(bare) > 1 else None
    by_name_alone = kind in ("user", "assistant", "system")
    return kind if by_name_alone or text.rstrip("*_ ").endswith(":") else None


def split_pairs(text: str) -> list[str]:
    """The labelled parts of a line that holds several: `Q: …? A: ….`"""
    return _SECOND_LABEL.split(text)


def question_columns(header: Sequence[str]) -> tuple[int, int] | None:
    """The columns of a table with questions and answers, or None."""
    names = [" ".join(cell.strip("*_:?# ").casefold().split()) for cell in header]
    question = _column(names, _QUESTION_COLUMNS, _QUESTION_WORDS)
    answer = _column(names, _ANSWER_COLUMNS, _ANSWER_WORDS)
    return None if question is None or answer is None or question == answer else (question, answer)


def _column(names: Sequence[str], exact: frozenset[str], words: frozenset[str]) -> int | None:
    """A column with such a name, else the first that has such a word in its name."""
    for number, name in enumerate(names):
        if name in exact:
            return number
    for number, name in enumerate(names):
        if words & {word.removesuffix("s") for word in re.findall(r"\w+", name)}:
            return number
    return None
