"""The table of every key that a strategy may hold, and what becomes of it.

It is data: the loader, `--set`, the JSON Schema and the reference read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from llamafarm.strategy.keys.beside import (
    DATASET,
    EXPORT,
    FILE_SIBLINGS,
    INFERENCE,
    MONITORING,
    OURS,
    PREPROCESSING,
    STRUCTURE,
)
from llamafarm.strategy.keys.fine_tuner import (
    BASE_MODEL,
    HARDWARE,
    METHOD,
    dataset_rows,
    training_rows_of_dataset,
)
from llamafarm.strategy.keys.llamafactory import llamafactory_rows
from llamafarm.strategy.keys.row import ASKED, CONFIG, Key, Status, under
from llamafarm.strategy.keys.training import training_rows

__all__ = ["ASKED", "CONFIG", "FILE_SIBLINGS", "Key", "KeyTree", "Status", "key_tree", "keys"]


@cache
def keys() -> tuple[Key, ...]:
    """Every row. The order decides which of two places wins that speak about the same value."""
    trained = (
        *METHOD,
        *BASE_MODEL,
        *training_rows("training_args."),
        *training_rows("training."),
        *training_rows(""),
        *HARDWARE,
    )
    rest = (
        *dataset_rows("dataset."),
        *training_rows_of_dataset("dataset."),
        Key("dataset", "dataset.path", backend="pytorch"),
        *llamafactory_rows(),
    )
    rows = (
        *STRUCTURE,
        *DATASET,
        *under(CONFIG, trained),
        *training_rows_of_dataset("dataset."),
        *under(CONFIG, rest),
        *PREPROCESSING,
        *OURS,
        *EXPORT,
        *MONITORING,
        *INFERENCE,
    )
    return tuple(replace(row, rank=rank) for rank, row in enumerate(rows))


@dataclass(slots=True)
class KeyTree:
    """The table by the parts of the paths. any_name: the child for names the user chooses."""

    children: dict[str, KeyTree] = field(default_factory=dict)
    rows: list[Key] = field(default_factory=list)
    any_name: KeyTree | None = None

    def child(self, name: str) -> KeyTree | None:
        """The subtree of a key."""
        return self.children.get(name, self.any_name)

    def row(self, backend: str, siblings: Iterable[str] = ()) -> Key | None:
        """The first row of this very key that holds for a backend and beside these siblings."""
        present = frozenset(siblings)
        for row in self.rows:
            if row.backend in ("", backend) and (not row.beside or row.beside & present):
                return row
        return None

    def holds_for(self, backend: str) -> bool:
        """Whether any row here or below belongs to this backend."""
        return any(row.backend in ("", backend) for row in self.walk())

    def walk(self) -> Iterator[Key]:
        """The rows here and below."""
        yield from self.rows
        for child in (*self.children.values(), *([self.any_name] if self.any_name else [])):
            yield from child.walk()

    def names(self, backend: str) -> list[str]:
        """The keys that may stand here."""
        return [name for name, child in self.children.items() if child.holds_for(backend)]


@cache
def key_tree() -> KeyTree:
    """The tree of all rows, in the table's order."""
    root = KeyTree()
    for row in keys():
        node = root
        for part in row.path.split("."):
            if part == "*":
                node.any_name = node.any_name or KeyTree()
                node = node.any_name
            else:
                node = node.children.setdefault(part, KeyTree())
        node.rows.append(row)
    return root
