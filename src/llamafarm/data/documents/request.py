"""What `prepare` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RowShape = Literal["alpaca", "messages"]
ROW_SHAPES: tuple[RowShape, ...] = ("alpaca", "messages")
DEFAULT_MIN_CHARS = 10
DEFAULT_MAX_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """Files and directories to read, and the one file to write.

    row_shape: of rows that have an answer; min_chars, max_chars: characters of all texts of a row
    together; keep_duplicates: equal and nearly equal rows stay; overwrite: an output that exists
    gives way.
    """

    inputs: tuple[Path, ...]
    output: Path
    row_shape: RowShape = "alpaca"
    min_chars: int = DEFAULT_MIN_CHARS
    max_chars: int = DEFAULT_MAX_CHARS
    keep_duplicates: bool = False
    overwrite: bool = False
