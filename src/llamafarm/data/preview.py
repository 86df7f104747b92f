"""Rows as a person can check them: the text that the model gets, and which of it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from llamafarm.data.rows import RowRef
from llamafarm.data.tokenized import TokenRows

MARKS = ("\u27e6", "\u27e7")


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A run of tokens as text. trained: the loss counts them."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """One row. pieces: trained and other text by turns."""

    source: RowRef
    tokens: int
    trained_tokens: int
    pieces: tuple[MarkedText, ...]


def marked_rows(rows: TokenRows, tokenizer: Any, *, most: int) -> tuple[MarkedRow, ...]:
    """The first rows, at most so many."""
    return tuple(marked_row(rows, row, tokenizer) for row in range(min(most, len(rows))))


def marked_row(rows: TokenRows, row: int, tokenizer: Any) -> MarkedRow:
    """One row: its tokens as text, run by run."""
    ids, trained = rows.input_ids(row).tolist(), rows.trained(row).tolist()
    runs = groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1])
    pieces = tuple(
        MarkedText(tokenizer.decode([token for token, _ in run], skip_special_tokens=False), is_on)
        for is_on, run in runs
    )
    return MarkedRow(rows.source(row), len(ids), sum(trained), pieces)


def preview(rows: TokenRows, row: int, tokenizer: Any, *, marks: tuple[str, str] = MARKS) -> str:
    """The text of one row with every run of trained tokens between two marks."""
    begin, end = marks
    pieces = marked_row(rows, row, tokenizer).pieces
    return "".join(f"{begin}{p.text}{end}" if p.trained else p.text for p in pieces)
