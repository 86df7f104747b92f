"""A value that somebody or something chose, with where it came from and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llamafarm.strategy.model import Origin

Source = Literal["flag", "strategy", "table", "detected", "default", "warning", "notice"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of what `setup` prints and the run directory keeps.

    field: dotted name of the value; value: as it is shown; reason: the evidence, e.g. `my_training,
    line 10`. source `warning` and `notice` mark lines that say something about a value instead of
    setting it.
    """

    field: str
    value: str
    source: Source
    reason: str


def written(field: str, value: str, origin: Origin | None, note: str = "") -> Decision:
    """The decision for a value that a person wrote. origin None: it came from a program, without a
    file.
    """
    source: Source = "strategy" if origin is None else origin.kind
    reason = "given" if origin is None else origin.describe()
    return Decision(field, value, source, f"{reason}: {note}" if note else reason)


def place(origin: Origin | None) -> str:
    """`file:line` of a value, or the flag as typed; empty where nobody wrote it."""
    if origin is None:
        return ""
    return origin.text if origin.kind == "flag" else f"{origin.file}:{origin.line}"
