"""HTML to blocks: what is said on the page, without its scripts, navigation and cookie notes.

Line numbers above 65,535 are given as 65,535: libxml2 keeps no higher ones for elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llamafarm.data.documents.blocks import (
    Block,
    Code,
    Divider,
    Heading,
    Line,
    Table,
    TableRow,
)
from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.text_repair import repair_text
from llamafarm.data.documents.word_set import word_set
from llamafarm.errors import DataError

BOILERPLATE = "page furniture removed"
# So far into a page its encoding is looked for.
HEAD_BYTES = 4096

# Below every heading of the page: the question of a FAQ entry, the term of a list of definitions.
_ENTRY_LEVEL = 7
_DECLARED = re.compile(rb"""<meta[^<>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.I)
_SPACE = re.compile(r"[ \t\r\n\f\v]+")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_NO_TEXT = word_set(
    "head script style noscript template svg math iframe object embed canvas audio video select "
    "button textarea datalist dialog map"
)
_FURNITURE = frozenset({"nav", "footer", "aside", "menu"})
_FURNITURE_ROLES = frozenset(
    {"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alertdialog"}
)
_OF_CONTROLS = _NO_TEXT | {"label", "legend"}
_MARKS_OF_THE_PAGE = frozenset({"main", "article", "h1"})
_SHARE_OF_THE_PAGE = 0.9
_NEVER_FURNITURE = frozenset({"html", "body", "main", "article"})
_CONSENT = re.compile(r"\b(?:cookies?|consent|gdpr)\b|cookie[-_]|[-_]cookie|consent[-_]", re.I)
_BLOCKS = word_set(
    "html body main article section div p header address blockquote figure figcaption ul ol li dl "
    "dt dd details summary table thead tbody tfoot tr td th caption fieldset legend center hgroup "
    "pre hr h1 h2 h3 h4 h5 h6"
)


def declared_encoding(head: bytes) -> str:
    """What the page says its encoding is, or an empty text. head: its first HEAD_BYTES."""
    match = _DECLARED.search(head)
    return match[1].decode("ascii") if match else ""


def html_blocks(text: str, name: str, ledger: FileLedger) -> Iterator[Block]:
    """The blocks of a page, its texts repaired. Raises DataError for one that cannot be read."""
    root = _parse(text, name)
    if root is not None:
        yield from _Reader(ledger).read(root)


def _parse(text: str, name: str) -> Any:
    from lxml import etree

    # Given as bytes: lxml takes no text that declares an encoding of its own.
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True)
    data = text.replace("\0", "").encode("utf-8", "replace")
    try:
        root = etree.fromstring(data, parser) if data.strip() else None
    except etree.LxmlError as fault:
        raise DataError(f"{name} cannot be read as HTML: {fault}") from fault
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise DataError(
            f"{name}: its elements are nested too deeply to be read",
            hint="save the page as text, or leave it out",
        )
    return root


class _Reader:
    """Walks through the elements and gives a block wherever one ends."""

    def __init__(self, ledger: FileLedger) -> None:
        self._ledger = ledger
        self._page_forms: frozenset[Any] = frozenset()
        self._texts: list[str] = []
        self._number = 1
        self._gap = 1
        self._lists: list[int | None] = []
        self._item = ""
        self._blocks: list[Block] = []

    def read(self, root: Any) -> Iterator[Block]:
        """All blocks of the tree."""
        from lxml import etree

        self._page_forms = _forms_around_the_page(root)
        walk = etree.iterwalk(root, events=("start", "end"))
        skipped: Any = None
        for event, element in walk:
            if not isinstance(element.tag, str):
                self._texts.append(_flat(element.tail) if event == "end" else "")
            elif event == "start":
                if self._is_skipped(element) or self._take_whole(element):
                    walk.skip_subtree()
                    skipped = element
                else:
                    self._start(element)
            else:
                if element is not skipped:
                    self._end(element)
                self._texts.append(_flat(element.tail))
            if self._blocks:
                yield from self._blocks
                self._blocks = []
        self._flush()
        yield from self._blocks

    def _is_skipped(self, element: Any) -> bool:
        if element.tag in _NO_TEXT:
            return True
        is_form = element.tag == "form" and element not in self._page_forms
        if not is_form and not _is_furniture(element):
            return False
        self._flush()
        if any(text.strip() for text in element.itertext()):
            self._ledger.changed(BOILERPLATE, element.sourceline or 1)
        return True

    def _take_whole(self, element: Any) -> bool:
        """Code and tables are taken with everything in them."""
        if element.tag == "pre":
            self._flush()
            code = "".join(element.itertext()).strip("\r\n")
            if code.strip():
                self._blocks.append(Code(f"```\n{code}\n```", element.sourceline or 1))
            return True
        table = _data_table(element) if element.tag == "table" else None
        if table is None:
            return False
        self._flush()
        self._blocks.append(table)
        return True

    def _start(self, element: Any) -> None:
        tag = element.tag
        if tag == "br":
            self._texts.append("\n")
        elif tag in _BLOCKS:
            self._flush()
            self._number = element.sourceline or self._number
            self._enter(tag)
        self._texts.append(_flat(element.text))

    def _enter(self, tag: str) -> None:
        if tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            self._item = self._next_item()
        elif tag == "hr":
            self._blocks.append(Divider(self._number))
        elif tag not in ("div", "section", "span") and not self._lists:
            self._gap = 1

    def _next_item(self) -> str:
        """The mark of the next item, indented by the lists it lies in."""
        indent = "  " * max(0, len(self._lists) - 1)
        count = self._lists[-1] if self._lists else None
        if count is None:
            return f"{indent}- "
        self._lists[-1] = count + 1
        return f"{indent}{count + 1}. "

    def _end(self, element: Any) -> None:
        tag = element.tag
        if tag in _HEADINGS or tag in ("dt", "summary"):
            self._end_heading(_HEADINGS.get(tag, _ENTRY_LEVEL))
        elif tag in _BLOCKS:
            self._flush()
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
            if tag in ("dl", "details"):
                self._blocks.append(Divider(element.sourceline or 1, _ENTRY_LEVEL))
            if not self._lists:
                self._gap = 1

    def _end_heading(self, level: int) -> None:
        text = " ".join(line.text for line in self._take_lines())
        if text:
            self._blocks.append(Heading(level, text, self._number))
        self._gap = 1

    def _flush(self) -> None:
        self._blocks += self._take_lines()

    def _take_lines(self) -> list[Line]:
        text, repairs = repair_text("".join(self._texts))
        self._texts = []
        lines: list[Line] = []
        for piece in text.split("\n"):
            said = _SPACE.sub(" ", piece).strip()
            if said:
                lines.append(Line(self._item + said, self._number, self._gap))
                self._item, self._gap = "", 0
        if lines:
            for repair in repairs:
                self._ledger.changed(repair, self._number)
        return lines


def _flat(text: str | None) -> str:
    """Line ends of the source are spaces on the page."""
    return _SPACE.sub(" ", text) if text else ""


def _is_furniture(element: Any) -> bool:
    tag = element.tag
    if tag in _NEVER_FURNITURE:
        return False
    if tag in _FURNITURE or element.get("role") in _FURNITURE_ROLES:
        return True
    if tag == "header":
        return not any(above.tag in ("article", "main") for above in element.iterancestors())
    named = f"{element.get('id', '')} {element.get('class', '')} {element.get('aria-label', '')}"
    return tag in _BLOCKS and len(named) > 2 and _CONSENT.search(named) is not None


def _forms_around_the_page(root: Any) -> frozenset[Any]:
    """Forms with the title or the main part of the page in them, or with nearly all its text: the
    box of a newsletter may hold most of the text of a short page.

    Controls with their names, and other furniture, do not count.
    """
    from lxml import etree

    if root.find(".//form") is None:
        return frozenset()
    said = marks = 0
    before: dict[Any, tuple[int, int]] = {}
    inside: dict[Any, tuple[int, int]] = {}
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        if event == "end":
            if element in before:
                inside[element] = said - before[element][0], marks - before[element][1]
            said += _length(element.tail)
        elif isinstance(element.tag, str):
            if element.tag in _OF_CONTROLS or _is_furniture(element):
                walk.skip_subtree()
                continue
            if element.tag == "form":
                before[element] = said, marks
            said += _length(element.text)
            marks += element.tag in _MARKS_OF_THE_PAGE
    enough = _SHARE_OF_THE_PAGE * said
    return frozenset(
        form for form, (text, mark) in inside.items() if mark or (text and text >= enough)
    )


def _length(text: str | None) -> int:
    return len(_flat(text).strip())


def _data_table(element: Any) -> Table | None:
    """The table, or None where it only arranges the page."""
    rows = list(element.iter("tr"))
    if (
        len(rows) < 2
        or next(element.iterdescendants("table", "ul", "ol", *_HEADINGS), None) is not None
    ):
        return None
    cells = [tuple(_cell(cell) for cell in row if cell.tag in ("td", "th")) for row in rows]
    if max(len(row) for row in cells) < 2:
        return None
    numbers = [row.sourceline or 1 for row in rows]
    below = zip(cells[1:], numbers[1:], strict=True)
    return Table(
        cells[0], tuple(TableRow(row, number) for row, number in below if any(row)), numbers[0]
    )


def _cell(element: Any) -> str:
    texts: list[str] = []
    for part in element.iter():
        if part.tag == "br" or part.tag == "p":
            texts.append("\n")
        if isinstance(part.tag, str) and part.tag not in _NO_TEXT:
            texts.append(_flat(part.text))
        if part is not element:
            texts.append(_flat(part.tail))
    lines = (_SPACE.sub(" ", line).strip() for line in "".join(texts).split("\n"))
    return repair_text("\n".join(line for line in lines if line))[0]
