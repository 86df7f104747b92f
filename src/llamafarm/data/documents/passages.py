"""Lines to paragraphs, and paragraphs to passages of a good length; never cut inside a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llamafarm.data.documents.blocks import Line
from llamafarm.data.documents.word_set import word_set

# Lines are taken as wrapped where none is longer than this, and all but the last nearly so.
_WIDEST_WRAPPED_LINE = 120
_NARROWEST_WRAPPED_LINE = 35
_LEAST_SHARE_OF_WIDTH = 0.6
_ABBREVIATION_CHARS = 12

_LIST_ITEM = re.compile(r"\s{0,40}(?:[-*+•–]\s|\(?\d{1,4}[.)]\s|\(?[a-zA-Z][.)]\s|\||>)")
_SENTENCE_END = re.compile(
    "(?<=[.!?…])[\"'”’»)\\]*_]{0,4}\\s+|(?<=[。！？])[\"'”’」』）]{0,4}|(?<=\n)"
)
_ABBREVIATIONS = word_set(
    "mr mrs ms dr prof st vs etc approx dept est fig no nos vol ca e.g i.e cf al jr sr inc ltd co "
    "corp u.s u.k z.b d.h bzw usw ggf nr str"
)
_CJK = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of text with the line it starts on. whole: code or a table, which is never cut."""

    text: str
    number: int
    whole: bool = False


def paragraph_text(lines: Sequence[Line]) -> str:
    """The lines as one paragraph; lines that were only wrapped to a width are joined."""
    if _are_wrapped(lines):
        return _joined_by_spaces([line.text.strip() for line in lines])
    text = lines[0].text.rstrip() if len(lines) == 1 else ""
    if not text:
        pieces: list[str] = []
        for line in lines:
            pieces.append(line.text if line.goes_on else line.text.rstrip() + "\n")
        text = "".join(pieces)
    return text.strip("\n").rstrip()


def _are_wrapped(lines: Sequence[Line]) -> bool:
    if len(lines) < 2 or any(line.goes_on for line in lines):
        return False
    widths = [len(line.text.rstrip()) for line in lines]
    widest = max(widths)
    return (
        _NARROWEST_WRAPPED_LINE <= widest <= _WIDEST_WRAPPED_LINE
        and min(widths[:-1]) >= _LEAST_SHARE_OF_WIDTH * widest
        and not any(line.text.endswith(("  ", "\\")) for line in lines[:-1])
        and not any(_LIST_ITEM.match(line.text) for line in lines[1:])
    )


def _joined_by_spaces(texts: Sequence[str]) -> str:
    joined: list[str] = []
    for text in texts:
        if joined and not (_CJK.match(joined[-1][-1]) and _CJK.match(text[:1])):
            joined.append(" ")
        joined.append(text)
    return "".join(joined)


def sentences(text: str) -> list[str]:
    """The text cut behind every sentence and line; joined again, it is the same text."""
    cuts = [
        match.end()
        for match in _SENTENCE_END.finditer(text)
        if match.end() < len(text) and not _goes_on(text, match.start(), match.end())
    ]
    starts = [0, *cuts]
    return [text[start:end] for start, end in zip(starts, [*cuts, len(text)], strict=True)]


def _goes_on(text: str, end: int, following: int) -> bool:
    """Whether a full stop ends an abbreviation, an initial or a number, and not a sentence."""
    if text[end - 1] != ".":
        return False
    if text[following].islower():
        return True
    before = text[max(0, end - _ABBREVIATION_CHARS) : end - 1].split()
    word = before[-1].lower().lstrip("(\"'“") if before else ""
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()) or word.isdigit()


def cut(part: Part, limit: int) -> list[Part]:
    """The part in pieces of at most `limit` characters that end where sentences or lines do.

    One sentence that is longer stays whole, as code and tables do.
    """
    if part.whole or len(part.text) <= limit:
        return [part]
    pieces: list[str] = []
    pending: list[str] = []
    length = 0
    for sentence in sentences(part.text):
        if pending and length + len(sentence) > limit:
            pieces.append("".join(pending).strip())
            pending, length = [], 0
        pending.append(sentence)
        length += len(sentence)
    pieces.append("".join(pending).strip())
    return [Part(piece, part.number) for piece in pieces if piece]
