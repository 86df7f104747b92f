"""Texts and tables in Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

# What makes code, links, images, emphasis and cells of a text.
_MARKUP = re.compile(r"([\\`*\[\]|])")


def escape_markdown(text: str) -> str:
    """The text on one line, as a reader of Markdown and of HTML in it shows it literally."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are escaped; the header is not."""
    lines = [header, ["---"] * len(header)]
    cells = [*lines, *([escape_markdown(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
