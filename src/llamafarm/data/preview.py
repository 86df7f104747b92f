"""Rows as a person can check them: the text that the model gets, and which of it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from llamafarm.data.rows import RowRef
from llamafarm.data.tokenized import TokenRows


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
    return tuple(_marked_row(rows, row, tokenizer) for row in range(min(most, len(rows))))


def _marked_row(rows: TokenRows, row: int, tokenizer: Any) -> MarkedRow:
    ids, trained = rows.input_ids(row).tolist(), rows.trained(row).tolist()
    runs = groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1])
    pieces = tuple(
        MarkedText(tokenizer.decode([token for token, _ in run], skip_special_tokens=False), is_on)
        for is_on, run in runs
    )
    return MarkedRow(rows.source(row), len(ids), sum(trained), pieces)
