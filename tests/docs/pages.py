"""The documentation as its tests read it: pages, their tables, code blocks and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    sorted(
        page
        for page in (
            ROOT / "README.md",
            ROOT / "demos" / "README.md",
            *(ROOT / "docs").glob("*.md"),
        )
        if page.is_file()
    )
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TICKED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its first line of content, 1-based."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Table:
    """Cells as text; rows without the header and the line below it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page, of some languages."""
    text = page.read_text("utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])
        for match in _FENCE.finditer(text)
        if not languages or match[1] in languages
    ]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def tables(text: str) -> Iterator[Table]:
    """The tables of a Markdown text."""
    for match in re.finditer(r"(?:^\|.*\|\n)+", text + "\n", re.MULTILINE):
        lines = [_cells(line) for line in match[0].splitlines()]
        yield Table(lines[0], tuple(lines[2:]))


def sections(text: str, level: int = 2) -> dict[str, str]:
    """Headings of one level with the text below each."""
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def ticked(cell: str) -> list[str]:
    """What stands in backquotes."""
    return _TICKED.findall(cell)


def command_lines(block: Block) -> Iterator[str]:
    """Commands of a shell block, without comments, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    for line in joined.splitlines():
        if line and not line.startswith("#"):
            yield line.split("  #")[0].strip()


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
