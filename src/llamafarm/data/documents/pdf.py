"""PDF files to blocks: the lines of each page put together to paragraphs; a number is a page's.

Lines that repeat at the top or bottom of pages, and page numbers, are no part of the text.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llamafarm.data.documents.blocks import Line
from llamafarm.data.documents.decode import Opener
from llamafarm.data.documents.labels import read_label
from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.text_repair import repair_text
from llamafarm.errors import DataError

RUNNING_LINES = "page headers, footers and page numbers removed"
HYPHENS = "words put together that were divided at line ends"
UNREADABLE_PAGE = "page that cannot be read"
EMPTY_PAGE = "page without text (a picture?)"

_EDGE_LINES = 2
_LEAST_PAGES = 3
_LEAST_SHARE_OF_PAGES = 0.5
_FULL_LINE = 0.6
_FULL_LAST_LINE = 0.85
_PAGE_NUMBER = re.compile(
    r"[-–—|\[( ]{0,3}(?:page|seite|p\.|s\.)?\s?\d{1,5}(?:\s?(?:of|/|von)\s?\d{1,5})?"
    r"[-–—|\]) .]{0,3}",
    re.I,
)
_DIGITS = re.compile(r"\d+")
_DIVIDED = re.compile(r"[^\W\d_]{2}-$")
_ENDS_SENTENCE = re.compile("[.!?…:。！？][\"'”’)\\]]{0,2}$")
_LIST_ITEM = re.compile(r"(?:[-*•–▪●◦]\s?|\(?\d{1,3}[.)]\s|\(?[a-z][.)]\s)")


@dataclass(frozen=True, slots=True)
class _PageLine:
    text: str
    page: int
    gap: int


def pdf_blocks(opener: Opener, name: str, ledger: FileLedger) -> Iterator[Line]:
    """The lines of a document, wrapped ones joined, its texts repaired.

    opener: gives the file, open in binary. Raises DataError for one that cannot be read, or that
    has no text.
    """
    with opener() as file, _quiet():
        pages = _pages(file, name, ledger)
    repeated = _running_lines(pages)
    lines: list[_PageLine] = []
    for number, page in enumerate(pages, start=1):
        lines += _body(page, number, repeated, ledger)
    yield from _paragraphs(lines, ledger)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pypdf tells programmers about every oddity of a file; our users get what matters of it."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _pages(file: Any, name: str, ledger: FileLedger) -> list[list[str]]:
    """The lines of every page."""
    from pypdf import PasswordType, PdfReader

    hint = "open it and save it anew, or as text"
    try:
        reader = PdfReader(file)
        if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise DataError(f"{name} is encrypted", hint="save it without a password")
        count = len(reader.pages)
    except DataError:
        raise
    except Exception as fault:  # pypdf raises whatever a broken file makes it do
        raise DataError(f"{name} cannot be read as PDF: {fault}", hint=hint) from fault
    pages = [_page(reader, number, ledger) for number in range(1, count + 1)]
    if not any(pages):
        raise DataError(
            f"{name} holds no text on its {count} pages: they are pictures",
            hint="run it through OCR first, e.g. `ocrmypdf IN.pdf OUT.pdf`",
        )
    return pages


def _page(reader: Any, number: int, ledger: FileLedger) -> list[str]:
    try:
        text = reader.pages[number - 1].extract_text()
    except Exception as fault:  # as above; the other pages can still be read
        ledger.dropped(UNREADABLE_PAGE, number, str(fault).split("\n", 1)[0][:80])
        return []
    text, repairs = repair_text(text)
    for repair in repairs:
        ledger.changed(repair, number)
    if not text.strip():
        ledger.dropped(EMPTY_PAGE, number)
        return []
    return [line.strip() for line in text.split("\n")]


def _running_lines(pages: Sequence[Sequence[str]]) -> frozenset[str]:
    """Lines at the edge of pages that stand on half of them, whatever number is in them."""
    filled = [page for page in pages if page]
    seen = Counter(
        key for page in filled for key in {_key(page[i]) for edge in _edges(page) for i in edge}
    )
    least = max(_LEAST_PAGES, len(filled) * _LEAST_SHARE_OF_PAGES)
    return frozenset(key for key, count in seen.items() if count >= least)


def _edges(page: Sequence[str]) -> tuple[list[int], list[int]]:
    """Positions of the first lines from the top, and of the last from the bottom."""
    filled = [i for i, line in enumerate(page) if line]
    half = min(_EDGE_LINES, len(filled) // 2)
    return filled[:half], filled[::-1][:half]


def _key(line: str) -> str:
    return _DIGITS.sub("0", line).casefold()


def _body(
    page: Sequence[str], number: int, repeated: frozenset[str], ledger: FileLedger
) -> list[_PageLine]:
    """The lines of a page without its header and footer."""
    removed = {i for edge in _edges(page) for i in _running(page, edge, repeated)}
    if removed:
        ledger.changed(RUNNING_LINES, number)
    lines: list[_PageLine] = []
    gap = 0
    for i, text in enumerate(page):
        if text and i not in removed:
            lines.append(_PageLine(text, number, gap if lines else 0))
            gap = 0
        elif not text:
            gap += 1
    return lines


def _running(page: Sequence[str], edge: Sequence[int], repeated: frozenset[str]) -> list[int]:
    """From the edge on, the lines that repeat and the page numbers, up to the first other one."""
    found: list[int] = []
    for i in edge:
        is_number = _PAGE_NUMBER.fullmatch(page[i]) is not None
        if not is_number and (_key(page[i]) not in repeated or read_label(page[i]) is not None):
            break
        found.append(i)
    return found


def _paragraphs(lines: Sequence[_PageLine], ledger: FileLedger) -> Iterator[Line]:
    """A full line goes on in the next one; a short one, or the end of a sentence there, ends it."""
    width = _usual_width(lines)
    pending: list[str] = []
    number = gap = 1
    for line in lines:
        if pending and not _goes_on(pending[-1], line, width):
            yield Line("".join(pending), number, gap)
            gap = 0 if _LIST_ITEM.match(line.text) and not line.gap else 1
            pending = []
        if not pending:
            pending, number = [line.text], line.page
        else:
            _join(pending, line, ledger)
    if pending:
        yield Line("".join(pending), number, gap)


def _usual_width(lines: Sequence[_PageLine]) -> int:
    widths = sorted(len(line.text) for line in lines)
    return widths[int(len(widths) * 0.9)] if widths else 0


def _goes_on(above: str, line: _PageLine, width: int) -> bool:
    if line.gap or _LIST_ITEM.match(line.text) or read_label(line.text) is not None:
        return False
    ends = _ENDS_SENTENCE.search(above[-4:]) is not None
    if len(above) >= (_FULL_LAST_LINE if ends else _FULL_LINE) * width:
        return True
    # A short line inside a sentence: the next one begins with a small letter.
    return not ends and line.text[:1].islower()


def _join(pending: list[str], line: _PageLine, ledger: FileLedger) -> None:
    above = pending[-1]
    if _DIVIDED.search(above[-3:]) and line.text[:1].islower():
        pending[-1] = above[:-1]
        pending.append(line.text)
        ledger.changed(HYPHENS, line.page)
    else:
        pending += [" ", line.text] if not above.endswith(" ") else [line.text]
