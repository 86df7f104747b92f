"""Documents read in tests: their blocks, their rows, and what the ledger says."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llamafarm.data.documents.blocks import Block
from llamafarm.data.documents.decode import SourceLine, find_encoding, read_text_lines
from llamafarm.data.documents.found import FoundRow
from llamafarm.data.documents.html import html_blocks
from llamafarm.data.documents.ledger import FileLedger, Ledger
from llamafarm.data.documents.markdown import markdown_blocks
from llamafarm.data.documents.recognise import recognise
from llamafarm.data.documents.text_lines import text_blocks

MOST = 20_000
_Reader = Callable[[Iterator[SourceLine], FileLedger], Iterator[Block]]


@dataclass(frozen=True)
class Read:
    """What was found in a text."""

    blocks: list[Block]
    rows: list[FoundRow]
    ledger: Ledger

    def pairs(self) -> list[tuple[str, str]]:
        """Question and answer of every row that has both, and nothing else."""
        return [(r.messages[0].content, r.messages[1].content) for r in self.rows if r.messages]

    def texts(self) -> list[str]:
        """Rows without a question."""
        return [row.text for row in self.rows if row.text]

    def changed(self) -> dict[str, int]:
        """How often what was changed."""
        return {tally.what: tally.count for tally in self.ledger.all_changed()}

    def dropped(self) -> dict[str, list[str]]:
        """Why something was dropped, and where."""
        return {t.what: [place.where for place in t.first] for t in self.ledger.all_dropped()}


def read_markdown(text: str, most: int = MOST) -> Read:
    return _read(text, markdown_blocks, most)


def read_text(text: str, most: int = MOST) -> Read:
    return _read(text, text_blocks, most)


def read_html(text: str, most: int = MOST) -> Read:
    ledger = Ledger()
    of_file = ledger.of_file("x", "line")
    blocks = list(html_blocks(text, "x", of_file))
    return Read(blocks, list(recognise(blocks, most, of_file)), ledger)


def _read(text: str, reader: _Reader, most: int) -> Read:
    ledger = Ledger()
    of_file = ledger.of_file("x", "line")
    data = text.encode("utf-8")
    encoding = find_encoding(lambda: io.BytesIO(data), "x")
    blocks = list(reader(read_text_lines(lambda: io.BytesIO(data), encoding, of_file), of_file))
    return Read(blocks, list(recognise(blocks, most, of_file)), ledger)
