"""Keeps count of what is changed and dropped in the files: all counted, the first listed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llamafarm.data.documents.report import Place, Tally
from llamafarm.data.records import MAX_LISTED

Unit = Literal["line", "record", "page", "paragraph"]


def place_name(name: str, unit: Unit, number: int) -> str:
    """`faq.md:12` for lines and records, `faq.pdf page 3` for the rest."""
    return f"{name}:{number}" if unit in ("line", "record") else f"{name} {unit} {number}"


@dataclass(slots=True)
class _Entry:
    count: int = 0
    first: list[Place] = field(default_factory=list)


class Ledger:
    """Of all files."""

    def __init__(self) -> None:
        self._changed: dict[str, _Entry] = {}
        self._dropped: dict[str, _Entry] = {}

    def of_file(self, name: str, unit: Unit) -> FileLedger:
        """The same ledger, for one file."""
        return FileLedger(self, name, unit)

    def changed(self, what: str, name: str, unit: Unit, number: int) -> None:
        """Something was made better."""
        _note(self._changed, what, name, unit, number, "")

    def dropped(self, why: str, name: str, unit: Unit, number: int, detail: str) -> None:
        """Something did not become a row of the output."""
        _note(self._dropped, why, name, unit, number, detail)

    def all_changed(self) -> tuple[Tally, ...]:
        """The most frequent first."""
        return _tallies(self._changed)

    def all_dropped(self) -> tuple[Tally, ...]:
        """The most frequent first."""
        return _tallies(self._dropped)


@dataclass(frozen=True, slots=True)
class FileLedger:
    """What happens to one file. number: of the line, record, page or paragraph, from 1."""

    ledger: Ledger
    name: str
    unit: Unit

    def changed(self, what: str, number: int) -> None:
        """Something was made better."""
        self.ledger.changed(what, self.name, self.unit, number)

    def dropped(self, why: str, number: int, detail: str = "") -> None:
        """Something did not become a row of the output."""
        self.ledger.dropped(why, self.name, self.unit, number, detail)


def _note(
    entries: dict[str, _Entry], what: str, name: str, unit: Unit, number: int, detail: str
) -> None:
    entry = entries.setdefault(what, _Entry())
    entry.count += 1
    if len(entry.first) < MAX_LISTED:
        entry.first.append(Place(place_name(name, unit, number), detail))


def _tallies(entries: dict[str, _Entry]) -> tuple[Tally, ...]:
    found = [Tally(what, entry.count, tuple(entry.first)) for what, entry in entries.items()]
    return tuple(sorted(found, key=lambda tally: -tally.count))
