"""One malformed file, how it is made, and what a user is to see of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Maker = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Case:
    """A file and its outcome: either `refused`, or `rows` and `bad`.

    content: its bytes, or what makes it at a path; file: its name; refused: what the refusal of the
    whole file says, each of these words; rows: the lines of the rows that are read; bad: the line
    of every row that is refused, and words of the reason or its hint; notices: words of them;
    findings: kinds of what the quality report says; changes: what the request asks for as well.
    """

    name: str
    content: bytes | Maker
    file: str = "rows.jsonl"
    refused: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    bad: Mapping[int, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)

    def make(self, directory: Path) -> Path:
        """Write the file into a directory."""
        path = directory / self.file
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)
        return path


def row(number: int) -> bytes:
    """A good row as JSON, without its line ending; no two numbers make rows that are alike."""
    fields = {"question": f"What is {number}?", "answer": f"It is the number {number}."}
    return json.dumps(fields).encode()


def jsonl(*lines: bytes) -> bytes:
    """These lines, each with LF."""
    return b"".join(line + b"\n" for line in lines)


def dumped(value: object) -> bytes:
    """A value as JSON text."""
    return json.dumps(value, ensure_ascii=False).encode()


def bad_line(name: str, line: bytes, said: str) -> Case:
    """A line that is refused, between two rows that are read."""
    return Case(name, jsonl(row(1), line, row(3)), rows=(1, 3), bad={2: said})


def good_line(name: str, line: bytes, findings: tuple[str, ...] = ()) -> Case:
    """A line that only looks wrong, between two others that are read."""
    return Case(name, jsonl(row(1), line, row(3)), rows=(1, 2, 3), findings=findings)


def bad_row(name: str, fields: object, said: str) -> Case:
    """A row whose JSON is right and whose fields are not, between two rows that are read."""
    return bad_line(name, dumped(fields), said)


def good_row(name: str, fields: object, findings: tuple[str, ...] = ()) -> Case:
    """A row that only looks wrong, between two others that are read."""
    return good_line(name, dumped(fields), findings)


def refused(name: str, content: bytes | Maker, *said: str, file: str = "rows.jsonl") -> Case:
    """A file that is refused as a whole."""
    return Case(name, content, file, refused=said)
