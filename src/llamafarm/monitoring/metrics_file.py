"""`metrics.jsonl`: one event a line, appended while the run goes on.

Every line is one write, so a kill loses at most the line in flight. A torn last line (one without
its newline) is therefore no fault: the reader leaves it out, and the next writer removes it. A line
that cannot be read anywhere else is a fault. What a checkpoint has behind it is made durable before
it is, or that checkpoint is not written. Lines that the disk refuses wait in memory for the next
one: none is missing in between.

JSON has no NaN and no Infinity: a non-finite number is written as null and read back as NaN. When a
loss or a gradient was non-finite, a `nonfinite` event tells it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from llamafarm.errors import OutputError, Problem, RunError
from llamafarm.files import fsync_directory, write_all, write_bytes_atomic
from llamafarm.monitoring.events import (
    RECORDED_EVENTS,
    CheckpointEvent,
    EvalEvent,
    Event,
    SavingEvent,
)
from llamafarm.monitoring.jsonable import to_jsonable


class MetricsFile:
    """Sink that appends events to a file. Events that are not `recorded` are left out.

    trouble: why lines are waiting; empty when all are written.
    """

    def __init__(self, path: Path) -> None:
        """Open the file for appending and drop a torn last line. Raises RunError where it cannot be
        written.
        """
        self._path = path
        self._waiting: list[bytes] = []
        self.trouble = ""
        try:
            self._descriptor, self._length = _open_for_appending(path)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def handle(self, event: Event) -> None:
        """Append one line, after those that wait. No part of a line is ever in front of another.

        A SavingEvent raises OSError where what is behind the checkpoint cannot be made durable: a
        resume from it would leave these lines out.
        """
        durable = isinstance(event, SavingEvent | CheckpointEvent)
        if event.recorded:
            self._waiting.append(event_line(event))
        elif not durable:
            return
        try:
            self._write_waiting()
            if durable:
                os.fsync(self._descriptor)
            self.trouble = ""
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut_torn_line()
            self.trouble = f"{self._path} cannot be written: {error.strerror or error}"
            if isinstance(event, SavingEvent):
                raise OSError(error.errno, error.strerror, str(self._path)) from error

    def close(self) -> None:
        """Make everything durable. Where the disk refuses it, `trouble` says so."""
        if self._descriptor < 0:
            return
        descriptor = self._descriptor
        try:
            self._write_waiting()
            os.fsync(descriptor)
            self.trouble = ""
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut_torn_line()
            self.trouble = f"{self._path} cannot be written: {error.strerror or error}"
        finally:
            self._descriptor = -1
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _write_waiting(self) -> None:
        while self._waiting:
            self._cut_torn_line()
            write_all(self._descriptor, self._waiting[0])
            self._length += len(self._waiting.pop(0))

    def _cut_torn_line(self) -> None:
        if os.fstat(self._descriptor).st_size > self._length:
            os.ftruncate(self._descriptor, self._length)


def event_line(event: Event) -> bytes:
    """The line of an event, with its newline."""
    text = json.dumps(to_jsonable(event.to_json()), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_events(path: Path) -> list[Event]:
    """All events of the file, in order; none when there is no file.

    Raises OutputError that names every line which is not an event, RunError when the disk refuses.
    """
    events, problems = read_what_can_be_read(path)
    if problems:
        raise OutputError(
            f"{path} cannot be read as events of a run",
            problems,
            hint="remove these lines, or start again with --overwrite",
        )
    return events


def read_what_can_be_read(path: Path) -> tuple[list[Event], list[Problem]]:
    """The events of the file, in order, and a problem for every line that is none. For whoever only
    looks: another version may have written the file. Raises RunError when the disk refuses.
    """
    return read_lines(_complete_lines(path), path)


def read_lines(
    lines: Sequence[bytes], path: Path, first: int = 1
) -> tuple[list[Event], list[Problem]]:
    """The same of complete lines, without their newlines. first: the number of the first one."""
    events: list[Event] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=first):
        try:
            events.append(_event_from_json(json.loads(line)))
        except (ValueError, RecursionError) as error:
            problems.append(Problem(str(error), where=f"{path}:{number}"))
    return events, problems


def cut_after(path: Path, step: int, *, evaluated: bool = False) -> int:
    """Drop what was recorded after the checkpoint of a step, because a resumed run will do it
    again; how many lines went. evaluated: whether the checkpoint has the evaluation of that step.

    That is what follows its `checkpoint` event; where a kill came before that was written, what
    follows the step. A line without a step belongs to the last step before it. Step -1 empties the
    file. The file is replaced whole or not at all; a torn last line goes too. Raises RunError when
    the disk refuses.
    """
    lines = _complete_lines(path)
    kept: list[bytes] = []
    beyond = step < 0
    for line in lines[: _end_of_checkpoint(lines, step, evaluated=evaluated)]:
        line_step, _ = _step_and_kind_of(line)
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
    """The lines that end with a newline. Raises RunError when the disk refuses to read them."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="see that the disk is whole, or start again with --overwrite",
        ) from error
    return content.split(b"\n")[:-1]


def _end_of_checkpoint(lines: Sequence[bytes], step: int, *, evaluated: bool) -> int:
    """How many lines there are up to the last `checkpoint` event of a step; all, without one.

    An evaluation that the checkpoint has, after that event, tells that the event is of an earlier
    checkpoint of the same step.
    """
    for number in range(len(lines), 0, -1):
        line = lines[number - 1]
        # Most lines need not be parsed to see that they are others.
        if b'"checkpoint"' not in line and b'"eval"' not in line:
            continue
        found = _step_and_kind_of(line)
        if found == (step, CheckpointEvent.kind):
            return number
        if evaluated and found == (step, EvalEvent.kind):
            break
    return len(lines)


def _step_and_kind_of(line: bytes) -> tuple[int | None, object]:
    """The step of a line, and what it tells. A line that cannot be read has neither: it is kept for
    the reader to complain about.
    """
    try:
        value = json.loads(line)
    except ValueError:
        return None, None
    if not isinstance(value, dict):
        return None, None
    step = value.get("step")
    return (step if isinstance(step, int) else None), value.get("event")


def _event_from_json(value: object) -> Event:
    """Raises ValueError for anything but an event of this version."""
    if not isinstance(value, dict) or "event" not in value:
        raise ValueError('expected an object with the key "event"')
    kind = RECORDED_EVENTS.get(value["event"]) if isinstance(value["event"], str) else None
    if kind is None:
        raise ValueError(f"unknown event {value['event']!r}")
    shape = _SHAPES[kind.kind]
    given = {key: item for key, item in value.items() if key != "event"}
    if wrong := sorted((given.keys() - shape.types.keys()) | (shape.required - given.keys())):
        raise ValueError(f"a {kind.kind} event with missing or unknown fields: {', '.join(wrong)}")
    for name, item in given.items():
        written = shape.types[name]
        if type(item) is float and written == "float":
            continue
        if not _FITS[written](item):
            raise ValueError(f"a {kind.kind} event whose {name} is not {_WORDS[written]}")
        given[name] = _without_json(item, written)
    return kind(**given)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a line of one kind has. types: as they are written in the class, by field."""

    types: Mapping[str, str]
    required: frozenset[str]


def _shape_of(kind: type[Event]) -> _Shape:
    types = {f.name: str(f.type) for f in fields(kind)}
    without = (f.name for f in fields(kind) if f.default is f.default_factory is MISSING)
    return _Shape(types, frozenset(without))


_SHAPES = {name: _shape_of(kind) for name, kind in RECORDED_EVENTS.items()}


def _is_int(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: object) -> bool:
    return value is None or type(value) is float or _is_int(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "int": _is_int,
    "float": _is_number,
    "float | None": _is_number,
    "str": _is_text,
    "bool": lambda value: isinstance(value, bool),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "Mapping[str, float]": lambda value: (
        isinstance(value, dict) and all(map(_is_number, value.values()))
    ),
    "Mapping[str, float | int | str | bool]": lambda value: (
        isinstance(value, dict)
        and all(_is_number(item) or isinstance(item, str | bool) for item in value.values())
    ),
}
_WORDS: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "float | None": "a number",
    "str": "a text",
    "bool": "true or false",
    "tuple[str, ...]": "a list of texts",
    "Mapping[str, float]": "an object of numbers",
    "Mapping[str, float | int | str | bool]": "an object of numbers and texts",
}


def _without_json(value: Any, written: str) -> Any:
    """Undo what JSON did: null for NaN, lists for tuples."""
    if value is None and written == "float":
        return float("nan")
    if isinstance(value, dict):
        return {k: float("nan") if item is None else item for k, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _open_for_appending(path: Path) -> tuple[int, int]:
    """The descriptor, and the length of the file without a torn last line, which is cut off."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    try:
        with open(descriptor, "rb", closefd=False) as stream:
            length = stream.read().rfind(b"\n") + 1
        os.ftruncate(descriptor, length)
        fsync_directory(path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, length


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path} cannot be written: {error.strerror or error}",
        hint="free some space, then --resume goes on from the last checkpoint; or choose another "
        "directory with --output DIR",
    )
