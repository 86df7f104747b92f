"""What a directory, an index or a config says of its data files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamafarm.strategy.model import DataFormat


@dataclass(frozen=True, slots=True)
class Collection:
    """Files, and how their rows are read.

    eval, test: None where there is none; columns, roles: our name → the file's, see RowSpec;
    eval_fraction: what is split off the training rows, between 0 and 1; None where nothing is said;
    notices: what was said and is not obeyed, or was decided.
    """

    train: tuple[Path, ...]
    eval: Path | None = None
    test: Path | None = None
    data_format: DataFormat = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    eval_fraction: float | None = None
    notices: tuple[str, ...] = ()
