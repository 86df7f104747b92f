"""One row of the key table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llamafarm.strategy.conversions import (
    DATA_FORMAT,
    EVAL_SPLIT,
    LOG_LEVEL,
    LOWER,
    METHOD_TYPE,
    MODULE_NAMES,
    OPTIMIZER,
    TRACKERS,
    TRAIN_SPLIT,
    Conversion,
)
from llamafarm.strategy.fields import field_specs

Status = Literal["obeyed", "notice", "refused", "structure"]
CONFIG = "components.fine_tuner.config."
# Targets below this prefix are no fields: `fp16` and `bf16` together decide mixed_precision.
ASKED = "asked."

CONVERSIONS: Mapping[str, Conversion] = {
    "method.type": METHOD_TYPE,
    "method.target_modules": MODULE_NAMES,
    "training_args.optim": OPTIMIZER,
    "training_args.report_to": TRACKERS,
    "dataset.eval_split": EVAL_SPLIT,
    "dataset.train_split": TRAIN_SPLIT,
    "dataset.format": DATA_FORMAT,
    "export.quantization": LOWER,
    "monitoring.log_level": LOG_LEVEL,
}


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a strategy may hold, and what becomes of it.

    path: from the strategy's root, `*` for any one name. target: the canonical path of the value.
    text: what a notice says, or a remark for the reference. Notices of one group make one line.
    backend: the only fine-tuner type that has this key. beside: the row holds only where one of
    these keys stands in the same mapping. quiet: a value that stands first is no contradiction.
    rank: place in the table; of two rows for the same value, the one that stands first wins.
    """

    path: str
    target: str = ""
    status: Status = "obeyed"
    conversion: Conversion | None = None
    text: str = ""
    group: str = ""
    backend: Literal["", "pytorch", "llamafactory"] = ""
    beside: frozenset[str] = frozenset()
    quiet: bool = False
    rank: int = 0

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit(".", 1)[-1]


def under(prefix: str, rows: Iterable[Key]) -> Iterator[Key]:
    """The rows, written below a prefix that ends in a dot."""
    return (replace(row, path=prefix + row.path) for row in rows)


def alias(path: str, target: str, conversion: Conversion | None = None) -> Key:
    """A row that sets a canonical value, converted as the target's own row does by default."""
    return Key(path, target, conversion=conversion or CONVERSIONS.get(target))


def notice(path: str, text: str, group: str = "") -> Key:
    """A row that is accepted, does nothing, and says so in one line."""
    return Key(path, status="notice", text=text, group=group)


def own(section: str, at: str | None = None) -> Iterator[Key]:
    """The rows of all fields below a section (`method.`), written below `at`, by default itself."""
    for spec in field_specs().values():
        if spec.path.startswith(section):
            path = (section if at is None else at) + spec.path.removeprefix(section)
            suffix = ".*" if spec.is_mapping else ""
            yield alias(path + suffix, spec.path + suffix)
