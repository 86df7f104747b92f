"""`metrics.jsonl`: one event a line, appended while the run goes on.

Every line is flushed when it is written, so a kill loses at most the line in flight. A torn last
line (one without its newline) is therefore no fault: the reader leaves it out, and the next writer
removes it. A line that cannot be read anywhere else is a fault.

JSON has no NaN and no Infinity: a non-finite number is written as null and read back as NaN. When a
loss or a gradient was non-finite, a `nonfinite` event tells it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, BinaryIO

from llamafarm.errors import OutputError, Problem, RunError
from llamafarm.files import write_bytes_atomic
from llamafarm.monitoring.events import RECORDED_EVENTS, Event
from llamafarm.monitoring.jsonable import to_jsonable


class MetricsFile:
    """Sink that appends events to a file. Events that are not `recorded` are left out."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending and drop a torn last line. Raises RunError where it cannot be
        written.
        """
        self._path = path
        try:
            self._stream = _open_for_appending(path)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def handle(self, event: Event) -> None:
        """Append one line. Raises RunError when the disk refuses it."""
        if not event.recorded:
            return
        try:
            self._stream.write(event_line(event))
            self._stream.flush()
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def close(self) -> None:
        """Make everything durable."""
        if self._stream.closed:
            return
        with self._stream:
            os.fsync(self._stream.fileno())


def event_line(event: Event) -> bytes:
    """The line of an event, with its newline."""
    text = json.dumps(to_jsonable(event.to_json()), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_events(path: Path) -> list[Event]:
    """All events of the file, in order; none when there is no file.

    Raises OutputError that names every line which is not an event.
    """
    events: list[Event] = []
    problems: list[Problem] = []
    for number, line in enumerate(_complete_lines(path), start=1):
        try:
            events.append(_event_from_json(json.loads(line)))
        except ValueError as error:
            problems.append(Problem(str(error), where=f"{path}:{number}"))
    if problems:
        raise OutputError(
            f"{path} cannot be read as events of a run",
            problems,
            hint="remove these lines, or start again with --overwrite",
        )
    return events


def cut_after(path: Path, step: int) -> int:
    """Drop what was recorded after a step, because a resumed run will do it again; how many lines
    went.

    A line without a step belongs to the last step before it. Step -1 empties the file. The file is
    replaced whole or not at all; a torn last line goes too. Raises RunError when the disk refuses.
    """
    lines = _complete_lines(path)
    kept: list[bytes] = []
    beyond = step < 0
    for line in lines:
        line_step = _step_of(line)
        beyond = beyond if line_step is None else line_step > step
        if not beyond:
            kept.append(line)
    if path.exists():
        try:
            write_bytes_atomic(path, b"".join(line + b"\n" for line in kept))
        except OSError as error:
            raise _cannot_write(path, error) from error
    return len(lines) - len(kept)


def _complete_lines(path: Path) -> list[bytes]:
    """The lines that end with a newline."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return content.split(b"\n")[:-1]


def _step_of(line: bytes) -> int | None:
    """The step of a line. A line that cannot be read has none: it is kept for the reader to
    complain about.
    """
    try:
        value = json.loads(line)
    except ValueError:
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if isinstance(step, int) else None


def _event_from_json(value: object) -> Event:
    """Raises ValueError for anything but an event of this version."""
    if not isinstance(value, dict) or "event" not in value:
        raise ValueError('expected an object with the key "event"')
    kind = RECORDED_EVENTS.get(value["event"]) if isinstance(value["event"], str) else None
    if kind is None:
        raise ValueError(f"unknown event {value['event']!r}")
    given = {key: item for key, item in value.items() if key != "event"}
    known = {f.name for f in fields(kind)}
    required = {f.name for f in fields(kind) if f.default is MISSING}
    if wrong := sorted((given.keys() - known) | (required - given.keys())):
        raise ValueError(f"a {kind.kind} event with missing or unknown fields: {', '.join(wrong)}")
    return kind(**dict(_read_fields(kind, given)))


def _read_fields(kind: type[Event], given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Undo what JSON did: null for NaN, lists for tuples."""
    types = {f.name: str(f.type) for f in fields(kind)}
    for name, value in given.items():
        if value is None and types[name] == "float":
            yield name, float("nan")
        elif isinstance(value, dict):
            yield name, {k: float("nan") if item is None else item for k, item in value.items()}
        elif isinstance(value, list):
            yield name, tuple(value)
        else:
            yield name, value


def _open_for_appending(path: Path) -> BinaryIO:
    stream = path.open("a+b")
    stream.seek(0)
    content = stream.read()
    torn = len(content) - (content.rfind(b"\n") + 1)
    if torn:
        stream.truncate(len(content) - torn)
    stream.seek(0, os.SEEK_END)
    return stream


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path} cannot be written: {error.strerror or error}",
        hint="free some space, then --resume goes on from the last checkpoint; or choose another "
        "directory with --output DIR",
    )
