"""A row as text with marks, for the records of the masks."""

from __future__ import annotations

from typing import Any

from llamafarm.data.preview import marked_rows
from llamafarm.data.tokenized import TokenRows


def marked(rows: TokenRows, tokenizer: Any) -> str:
    """The text of the first row, with every run of trained tokens between ⟦ and ⟧."""
    (row,) = marked_rows(rows, tokenizer, most=1)
    return "".join(f"⟦{p.text}⟧" if p.trained else p.text for p in row.pieces)
