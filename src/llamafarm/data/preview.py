"""Rows as a person can check them: the text that the model gets, what it is trained on marked."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from llamafarm.data.tokenized import TokenRows

MARKS = ("⟦", "⟧")


def preview(rows: TokenRows, row: int, tokenizer: Any, *, marks: tuple[str, str] = MARKS) -> str:
    """The text of one row with every run of trained tokens between two marks."""
    begin, end = marks
    pairs = zip(rows.input_ids(row).tolist(), rows.trained(row).tolist(), strict=True)
    parts: list[str] = []
    for trained, run in groupby(pairs, key=lambda pair: pair[1]):
        text = tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        parts.append(f"{begin}{text}{end}" if trained else text)
    return "".join(parts)
