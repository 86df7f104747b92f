"""Plain text to blocks: headings underlined, numbered or in capitals, fenced code, lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamafarm.data.documents.blocks import Block, Code, Divider, Heading, Line
from llamafarm.data.documents.decode import SourceLine
from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.lookahead import Lookahead
from llamafarm.data.documents.text_repair import repair_text

_LONGEST_HEADING = 100
_LONGEST_CAPITALS = 70
_FEWEST_CAPITALS = 4

_UNDERLINE = re.compile(r"\s{0,3}(=+|-+|~+)\s*")
_RULE = re.compile(r"\s{0,3}([-*_=~#])(?:\s?\1){2,200}\s*")
_NUMBERED = re.compile(
    r"(?:chapter|section|part|appendix)\s+[\dIVXA-Z]{1,6}\b|\d{1,2}(?:\.\d{1,2}){1,4}\.?\s+\S", re.I
)
_FENCE = re.compile(r"[ \t]{0,20}(`{3,}|~{3,})([^`]*)$")


def text_blocks(lines: Iterator[SourceLine], ledger: FileLedger) -> Iterator[Block]:
    """The blocks of a plain text; its lines come repaired, code as it is."""
    source, gap = Lookahead(lines), 1
    for line in source:
        fence = fence_of(line)
        if fence:
            yield take_code(line, fence, source)
            gap = 1
            continue
        text, number = repaired(line, ledger), line.number
        if not text.strip():
            gap += 1
            continue
        level = _heading_level(text, gap, source) if not line.goes_on else None
        if level is not None:
            yield Heading(level, text.strip().strip("#").strip(), number)
            gap = 1
        elif is_rule(text):
            yield Divider(number)
            gap += 1
        else:
            yield Line(text, number, gap, line.goes_on)
            gap = 0


def repaired(line: SourceLine, ledger: FileLedger) -> str:
    """The text of a line without what does not belong in it; every repair is noted."""
    text, repairs = repair_text(line.text)
    for repair in repairs:
        ledger.changed(repair, line.number)
    return text


def is_rule(text: str) -> bool:
    """Whether a line divides what stands above it from what stands below."""
    return _RULE.fullmatch(text) is not None


def fence_of(line: SourceLine) -> str:
    """The fence that opens a piece of code, or an empty text."""
    if line.goes_on or line.text.lstrip()[:3] not in ("```", "~~~"):
        return ""
    match = _FENCE.match(line.text)
    return match[1] if match else ""


def take_code(opening: SourceLine, fence: str, source: Lookahead) -> Code:
    """The code from its fence to the one that closes it, or to the end of the document."""
    texts = [opening.text]
    for line in source:
        texts.append(line.text if line.goes_on else line.text + "\n")
        bare = line.text.strip()
        if len(bare) >= len(fence) and bare == fence[0] * len(bare):
            break
    return Code("\n".join([texts[0], "".join(texts[1:]).removesuffix("\n")]), opening.number)


def _heading_level(text: str, gap: int, source: Lookahead) -> int | None:
    """The level of a heading, or None; it takes the line below it where that underlines it."""
    bare = text.strip()
    if not gap or len(bare) > _LONGEST_HEADING:
        return None
    following = source.peek()
    below = following.text if following is not None else ""
    if len(below) <= 2 * _LONGEST_HEADING and _underlines(below, bare):
        source.take()
        return 1 if below.strip()[0] == "=" else 2
    hashes = len(bare) - len(bare.lstrip("#"))
    if 1 <= hashes <= 6 and bare[hashes : hashes + 1] == " ":
        return hashes
    if below.strip():
        return None
    if _NUMBERED.match(bare) and not bare.endswith((".", ",", ";", ":")):
        return 1 + bare.split()[0].rstrip(".").count(".")
    return 1 if _is_in_capitals(bare) else None


def _underlines(below: str, above: str) -> bool:
    match = _UNDERLINE.fullmatch(below)
    return match is not None and len(match[1]) >= 3 and any(c.isalnum() for c in above)


def _is_in_capitals(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return (
        letters >= _FEWEST_CAPITALS
        and len(text) <= _LONGEST_CAPITALS
        and text.isupper()
        and text[-1] not in ".,;:!?"
    )
