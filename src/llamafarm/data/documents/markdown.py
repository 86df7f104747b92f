"""Markdown to blocks: headings, fenced and indented code, tables, rules; inline marks stay."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamafarm.data.documents.blocks import Block, Code, Divider, Heading, Line, Table, TableRow
from llamafarm.data.documents.decode import SourceLine
from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.lookahead import Lookahead
from llamafarm.data.documents.text_lines import fence_of, is_rule, repaired, take_code

FRONT_MATTER = "front matter removed"
COMMENT = "comments removed"
MARKUP = "lines of markup without text removed"

_MOST_FRONT_LINES = 500
_MOST_COMMENT_LINES = 2_000
_LONGEST_HEADING = 300
_LONGEST_MARKUP = 2_000

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_CLOSING = re.compile(r"(?:^|[ \t])#{1,20}$|\s*\{#[\w-]{1,80}\}$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})\s*")
_LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])[ \t]")
_TABLE_RULE = re.compile(r"\s{0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_ONLY_MARKUP = re.compile(
    r"(?:\s{0,4}(?:</?[a-zA-Z][^<>]*>|\[?!\[[^\[\]]*\]\([^()]*\)(?:\]\([^()]*\))?))+\s*"
)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_EMPHASIS = re.compile(r"(\*{1,3}|_{2,3})(?=\S)(.+?)(?<=\S)\1")


def markdown_blocks(lines: Iterator[SourceLine], ledger: FileLedger) -> Iterator[Block]:
    """The blocks of a Markdown text; its lines come repaired, code as it is."""
    source = Lookahead(lines)
    _pass_over_front_matter(source, ledger)
    comments = _Comments(source, ledger)
    gap, in_list = 1, False
    for line in source:
        fence = fence_of(line)
        if fence:
            yield take_code(line, fence, source)
            gap = 1
            continue
        if gap and not in_list and _is_indented(line):
            yield _take_indented_code(line, source)
            gap = 1
            continue
        if comments.pass_over(line) or _is_markup(line, ledger):
            continue
        text = repaired(line, ledger)
        if not text.strip():
            gap += 1
            continue
        block = None if line.goes_on else _special(text, gap, line.number, source, ledger)
        if block is not None:
            yield block
            gap, in_list = 1, False
            continue
        in_list = _LIST_ITEM.match(text[:50]) is not None or (in_list and text[0].isspace())
        yield Line(text, line.number, gap, line.goes_on)
        gap = 0


def _special(
    text: str, gap: int, number: int, source: Lookahead, ledger: FileLedger
) -> Heading | Table | Divider | None:
    """A heading, a table or a rule, with the lines it takes; None for an ordinary line."""
    match = _HEADING.match(text)
    if match and len(text) <= _LONGEST_HEADING:
        title = heading_text(text[match.end(1) :])
        return Heading(len(match[1]), title, number) if title else Divider(number)
    if is_rule(text):
        return Divider(number)
    following = source.peek()
    if following is None or not gap or len(following.text) > _LONGEST_MARKUP:
        return None
    if "|" in text and "-" in following.text and _TABLE_RULE.fullmatch(following.text):
        source.take()
        return _take_table(text, number, source, ledger)
    match = _UNDERLINE.fullmatch(following.text)
    if match and len(text) <= _LONGEST_HEADING and not _LIST_ITEM.match(text):
        source.take()
        return Heading(1 if match[1][0] == "=" else 2, heading_text(text), number)
    return None


def heading_text(text: str) -> str:
    """What a heading says, without the marks around it."""
    text = _CLOSING.sub("", text.strip()).strip()
    return _EMPHASIS.sub(r"\2", _LINK.sub(r"\1", text)).strip()


def _pass_over_front_matter(source: Lookahead, ledger: FileLedger) -> None:
    """What stands between two lines `---` (or `+++`) at the very start says things of the file."""
    first = source.take()
    if first is None:
        return
    mark = first.text.removeprefix("\ufeff").rstrip()
    taken = [first]
    while mark in ("---", "+++") and len(taken) < _MOST_FRONT_LINES:
        line = source.take()
        if line is None:
            break
        taken.append(line)
        if line.text.rstrip() in (mark, "..."):
            if len(taken) > 2 and not taken[1].text.strip():
                break
            ledger.changed(FRONT_MATTER, first.number)
            return
    source.give_back(taken)


def _is_markup(line: SourceLine, ledger: FileLedger) -> bool:
    """Whether a line holds tags or pictures only."""
    text = line.text.lstrip()
    if not text.startswith(("<", "[![", "![")) or len(text) > _LONGEST_MARKUP:
        return False
    if not _ONLY_MARKUP.fullmatch(text):
        return False
    ledger.changed(MARKUP, line.number)
    return True


class _Comments:
    """Passes over comments, which may hold many lines. One that never ends is text."""

    def __init__(self, source: Lookahead, ledger: FileLedger) -> None:
        self._source = source
        self._ledger = ledger
        self._no_end_before = 0

    def pass_over(self, line: SourceLine) -> bool:
        """Whether the line begins a comment; the lines up to its end are taken."""
        if not line.text.lstrip().startswith("<!--") or line.number < self._no_end_before:
            return False
        taken: list[SourceLine] = []
        following: SourceLine | None = line
        while following is not None and len(taken) < _MOST_COMMENT_LINES:
            taken.append(following)
            _, end, after = following.text.partition("-->")
            if end:
                self._ledger.changed(COMMENT, line.number)
                if after.strip():
                    rest = SourceLine(after.lstrip(), following.number, following.goes_on)
                    self._source.give_back([rest])
                return True
            following = self._source.take()
        if following is not None:
            taken.append(following)
        self._no_end_before = taken[-1].number
        self._source.give_back(taken[1:])
        return False


def _is_indented(line: SourceLine) -> bool:
    return line.text.startswith(("    ", "\t")) and not line.text.isspace()


def _take_indented_code(first: SourceLine, source: Lookahead) -> Code:
    """Indented lines with the blank ones between them."""
    texts = [first.text]
    blank: list[SourceLine] = []
    while (line := source.peek()) is not None:
        if line.text.strip() and not _is_indented(line):
            break
        source.take()
        blank.append(line)
        if line.text.strip():
            texts += [taken.text for taken in blank]
            blank = []
    source.give_back(blank)
    return Code("\n".join(texts), first.number)


def _take_table(header: str, number: int, source: Lookahead, ledger: FileLedger) -> Table:
    rows: list[TableRow] = []
    while (line := source.peek()) is not None and "|" in line.text and line.text.strip():
        source.take()
        rows.append(TableRow(_cells(repaired(line, ledger)), line.number))
    return Table(_cells(header), tuple(rows), number)


def _cells(text: str) -> tuple[str, ...]:
    inner = text.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return tuple(cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", inner))
