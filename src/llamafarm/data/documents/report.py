"""What `prepare` read, made, changed and dropped, as plain values: the command prints them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where something happened: `faq.md:12`, `faq.pdf page 3`. detail: empty, or more about it."""

    where: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often one thing happened, and where it did the first times."""

    what: str
    count: int
    first: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class FileReport:
    """One input. recognised: rows by what they were in the file; rows: how many of them are kept.

    encoding: as it was found; empty where the format has none of its own (Parquet, Word, PDF).
    """

    name: str
    kind: str
    encoding: str
    recognised: Mapping[str, int]
    rows: int


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """The whole preparation. found: rows recognised; rows: written; shapes: those by their shape.

    changed, dropped: by what was done, the most frequent first; dropped holds rows and pieces of
    text that became none.
    """

    output: Path
    found: int
    rows: int
    shapes: Mapping[str, int]
    files: tuple[FileReport, ...]
    changed: tuple[Tally, ...]
    dropped: tuple[Tally, ...]
    notices: tuple[str, ...]
