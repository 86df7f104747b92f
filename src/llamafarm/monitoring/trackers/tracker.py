"""What every tracker is told, and what its adapter does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

PROJECT = "llamafarm"
"""The project that runs are filed under, where the tracker's own variable names none."""

Value = float | int | str | bool


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as a tracker files it. id: the same after a resume; directory: of the run; first_byte:
    of metrics.jsonl, what stands before it was told earlier; config: the resolved strategy, by
    path.
    """

    id: str
    name: str
    directory: str
    resumed: bool
    first_byte: int
    config: Mapping[str, Value]

    def to_line(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> RunFacts:
        """Undo to_line."""
        values: dict[str, Any] = json.loads(line)
        return cls(**values)


class Tracker(Protocol):
    """One run in one tracker. Any exception means that it does not take more."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, after `step`."""
        ...

    def tell(self, name: str, text: str) -> None:
        """A text of the run that is worth keeping, such as a finding."""
        ...

    def finish(self, status: str, results: Mapping[str, float]) -> None:
        """The end. status: completed, interrupted or failed."""
        ...


OpenTracker = Callable[[RunFacts], Tracker]
