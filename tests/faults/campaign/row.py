"""What a row of the campaign's table is: a fault, how often, and when it counts as passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Form = Literal["short", "long"]


@dataclass(frozen=True, slots=True)
class Case:
    """One fault done once. name: enough to do it again; detail: what was seen, in a line, and why
    it failed where it did.

    facts: numbers that the published table sums or shows, e.g. {"inside a save": 1}.
    """

    name: str
    passed: bool
    detail: str = ""
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. key: its name on the command line; fault, passes_when: as published.

    cases(workdir, form): does the faults in an empty directory of its own and yields each as it is
    done. A row of the short form takes part in `make test`, so it has seconds, not minutes.
    """

    key: str
    fault: str
    passes_when: str
    cases: Callable[[Path, Form], Iterator[Case]]
