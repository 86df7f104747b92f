"""Data files and requests for the tests of this room."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llamafarm.data.records import BadRow, Item, Record
from llamafarm.data.request import DataRequest

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def qa(number: int) -> dict[str, str]:
    """A row that no other row repeats."""
    return {"question": f"What is {number}?", "answer": f"It is the number {number}."}


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """One row a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def request_for(train: Path, **changes: Any) -> DataRequest:
    """A tenth of one file for evaluation, unless told otherwise."""
    fields: dict[str, Any] = {
        "train_location": train,
        "eval_location": None,
        "test_location": None,
        "eval_wanted": True,
        "eval_fraction": 0.1,
        "chat_template": CHATML,
        "max_length": 256,
        "seed": 42,
    }
    return DataRequest(**{**fields, **changes})


def good_and_bad(items: Iterable[Item]) -> tuple[list[Record], list[BadRow]]:
    """What a reader gave, sorted."""
    listed = list(items)
    good = [item for item in listed if isinstance(item, Record)]
    return good, [item for item in listed if isinstance(item, BadRow)]
