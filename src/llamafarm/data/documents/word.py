"""Word files (.docx) to blocks: headings by their style, lists, tables; a number is a paragraph's.

Headers, footers, footnotes, deleted text and tables of contents are no part of the text; what was
moved stands where it was moved to.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO

from llamafarm.data.documents.blocks import Block, Heading, Line, Table, TableRow
from llamafarm.data.documents.decode import Opener
from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.text_repair import repair_text
from llamafarm.errors import DataError

CONTENTS = "table of contents removed"

_MAX_XML_BYTES = 1 << 29
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_SAYS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_HEADING_STYLE = re.compile(r"heading ([1-9])\b", re.I)


def word_blocks(opener: Opener, name: str, ledger: FileLedger) -> Iterator[Block]:
    """The blocks of a document, its texts repaired.

    opener: gives the file, open in binary. Raises DataError for one that cannot be read.
    """
    with opener() as file:
        document = _open(file, name)
        yield from _Reader(_style_names(document), ledger).read(document.element.body)


def _open(file: BinaryIO, name: str) -> Any:
    import docx
    from docx.opc.exceptions import PackageNotFoundError

    hint = "open it in a word processor and save it as .docx anew, or as text"
    try:
        with zipfile.ZipFile(file) as archive:
            largest = max((entry.file_size for entry in archive.infolist()), default=0)
        if largest > _MAX_XML_BYTES:
            raise DataError(f"{name} unpacks to more than {_MAX_XML_BYTES:,} bytes", hint=hint)
        file.seek(0)
        return docx.Document(file)
    except (PackageNotFoundError, zipfile.BadZipFile) as fault:
        raise DataError(f"{name} is damaged, or no Word file (.docx)", hint=hint) from fault
    except (
        KeyError,
        ValueError,
        AttributeError,
        SyntaxError,
        NotImplementedError,
        OSError,
    ) as fault:
        # What python-docx and lxml raise where parts of the package are missing or broken.
        raise DataError(f"{name} cannot be read as a Word file: {fault}", hint=hint) from fault


def _style_names(document: Any) -> Mapping[str, str]:
    """Names by id. Ids are in the language of the program that wrote them, names in English."""
    return {style.style_id: style.name or "" for style in document.styles if style.style_id}


class _Reader:
    def __init__(self, styles: Mapping[str, str], ledger: FileLedger) -> None:
        self._styles = styles
        self._ledger = ledger
        self._number = 0
        self._gap = 1
        self._after_item = False

    def read(self, body: Any) -> Iterator[Block]:
        """The blocks of a body; content controls are looked into."""
        for element in body.iterchildren():
            if element.tag == f"{_W}p":
                yield from self._paragraph(element)
            elif element.tag == f"{_W}tbl":
                yield self._table(element)
                self._gap = 1
            elif element.tag == f"{_W}sdt":
                for content in element.iterchildren(f"{_W}sdtContent"):
                    yield from self.read(content)

    def _paragraph(self, paragraph: Any) -> Iterator[Block]:
        self._number += 1
        style = self._style(paragraph)
        text, repairs = repair_text(_text(paragraph))
        if not text.strip():
            self._gap += 1
            return
        if style.lower().startswith("toc"):
            self._ledger.changed(CONTENTS, self._number)
            return
        for repair in repairs:
            self._ledger.changed(repair, self._number)
        level = _heading_level(style)
        if level is not None:
            yield Heading(level, " ".join(text.split()), self._number)
            self._gap = 1
            return
        yield from self._lines(text, self._is_item(paragraph, style))

    def _lines(self, text: str, is_item: bool) -> Iterator[Line]:
        gap = 0 if is_item and self._after_item else max(1, self._gap)
        mark = "- " if is_item else ""
        for piece in text.split("\n"):
            if piece.strip():
                yield Line(mark + piece.strip(), self._number, gap)
                mark, gap = "", 0
        self._after_item, self._gap = is_item, 1

    def _style(self, paragraph: Any) -> str:
        value = paragraph.find(f"{_W}pPr/{_W}pStyle")
        return self._styles.get(value.get(f"{_W}val"), "") if value is not None else ""

    def _is_item(self, paragraph: Any, style: str) -> bool:
        numbered = paragraph.find(f"{_W}pPr/{_W}numPr") is not None
        return numbered or style.lower().startswith("list ")

    def _table(self, table: Any) -> Table:
        self._number += 1
        rows = [
            tuple(self._cell(cell) for cell in row.iterchildren(f"{_W}tc"))
            for row in table.iterchildren(f"{_W}tr")
        ]
        header, *below = rows or [()]
        return Table(header, tuple(TableRow(row, self._number) for row in below), self._number)

    def _cell(self, cell: Any) -> str:
        texts = (repair_text(_text(paragraph))[0] for paragraph in _paragraphs(cell))
        return "\n".join(text for text in texts if text.strip())


def _heading_level(style: str) -> int | None:
    if style.lower() == "title":
        return 0
    match = _HEADING_STYLE.match(style)
    return int(match[1]) if match else None


def _text(paragraph: Any) -> str:
    """What a paragraph says, insertions, links and text boxes included. Deleted text has another
    tag.
    """
    return "".join(_texts(paragraph))


def _texts(element: Any) -> Iterator[str]:
    for part in _parts(element):
        if part.tag == f"{_W}t":
            yield part.text or ""
        elif part.tag in _SAYS:
            yield _SAYS[part.tag]
        elif part.tag == f"{_W}p":  # of a text box
            yield from ("\n", *_texts(part), "\n")
        else:
            yield from _texts(part)


def _paragraphs(element: Any) -> Iterator[Any]:
    """The outermost paragraphs, also those of tables inside."""
    for part in _parts(element):
        if part.tag == f"{_W}p":
            yield part
        else:
            yield from _paragraphs(part)


def _parts(element: Any) -> Iterator[Any]:
    """The children, without text that was moved away; of the forms of one thing, the first with
    text.
    """
    if element.tag == f"{_MC}AlternateContent":
        forms = element.iterchildren(f"{_MC}Choice", f"{_MC}Fallback")
        with_text = (form for form in forms if next(form.iter(f"{_W}t"), None) is not None)
        yield from islice(with_text, 1)
        return
    yield from (part for part in element.iterchildren() if part.tag != f"{_W}moveFrom")
