"""What readers of documents give: one line, heading, table or piece of code after the other."""

from __future__ import annotations

from dataclasses import dataclass

NO_HEADING = 99


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text that is not blank. number: line, page or paragraph of the file, from 1.

    gap: blank lines before it, 0 where it belongs to the line before; goes_on: the next one is the
    rest of the same line, which was too long to be read at once.
    """

    text: str
    number: int
    gap: int = 0
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Heading:
    """level: 0 for the title of a document, 1 for the highest heading, and so on."""

    level: int
    text: str
    number: int


@dataclass(frozen=True, slots=True)
class Code:
    """Text that is taken as it is, fences included."""

    text: str
    number: int


@dataclass(frozen=True, slots=True)
class TableRow:
    """The cells of one row."""

    cells: tuple[str, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Table:
    """rows: without the header; a row may have more or fewer cells than it."""

    header: tuple[str, ...]
    rows: tuple[TableRow, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Divider:
    """Ends a question or dialogue, and the sections of this level and below."""

    number: int
    level: int = NO_HEADING


Block = Line | Heading | Code | Table | Divider
