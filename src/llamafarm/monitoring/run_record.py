"""Everything that is known of a run, read back from its directory.

A run that is still going on, that was stopped, that failed, or that another version made has a
record too: what is not there, or cannot be read, is None or empty, and `unread` says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from llamafarm.data.report import DataReport
from llamafarm.decision import Decision
from llamafarm.errors import LlamafarmError, OutputError, Problem, RunError, count_of, listed
from llamafarm.hardware.facts import Hardware
from llamafarm.models.source import ModelSource
from llamafarm.monitoring.comparison import Comparison
from llamafarm.monitoring.events import (
    Event,
    FindingEvent,
    SettingsEvent,
    StartEvent,
    StepEvent,
)
from llamafarm.monitoring.formats import format_bytes
from llamafarm.monitoring.metrics_file import read_what_can_be_read
from llamafarm.monitoring.summary import RunSummary, summarise
from llamafarm.planning.plan import Forecast

_Value = TypeVar("_Value")

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
_SUMMARY, _COMPARISON, _STRATEGY = "summary.json", "comparison.json", "strategy.yaml"
RECORD_FILES = (RUN_FILE, METRICS_FILE, _SUMMARY, _COMPARISON, _STRATEGY)
"""What a record is made of."""
_LOCK = ".lock"
# A million logged steps, which take a few GiB of memory; and far more than a run writes elsewhere.
_LARGEST_METRICS, _LARGEST_FILE = 512 * 1024**2, 128 * 1024**2

ReadMetrics = Callable[[Path], tuple[Sequence[Event], Sequence[Problem]]]
"""The events of a file, and a problem for every line that is none."""


@dataclass(frozen=True, slots=True)
class Actual:
    """What came true of the forecast, in its units."""

    memory_bytes: int
    seconds: float
    train_tokens: int
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. status: running, completed, interrupted, failed, or `stopped` for a run that died
    without a word; started, ended: None where not known; resumed: when it went on again.

    summary: of summary.json once it ended, before that what its events come to; unread: what could
    not be read; has_model: whether there is a final model.
    """

    root: Path
    id: str
    status: str
    title: str
    strategy: str
    run_name: str
    command: str
    error: str
    started: datetime | None
    ended: datetime | None
    resumed: tuple[datetime, ...]
    strategy_sha256: str
    strategy_yaml: str
    seed: int | None
    data_fingerprint: str
    versions: Mapping[str, str]
    decisions: tuple[Decision, ...]
    model: ModelSource | None
    data: DataReport | None
    hardware: Hardware | None
    forecast: Forecast | None
    actual: Actual | None
    comparison: Comparison | None
    summary: RunSummary
    events: tuple[Event, ...]
    unread: tuple[str, ...]
    has_model: bool

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.title or self.run_name or self.strategy or self.root.name

    @property
    def settings(self) -> SettingsEvent | None:
        """What the run was told to do."""
        return next((e for e in reversed(self.events) if isinstance(e, SettingsEvent)), None)

    @property
    def start(self) -> StartEvent | None:
        """The last start of the loop."""
        return next((e for e in reversed(self.events) if isinstance(e, StartEvent)), None)

    @property
    def seconds(self) -> float:
        """What the run took; of one that goes on, up to its last logged step. 0: not known."""
        steps = (e.seconds for e in reversed(self.events) if isinstance(e, StepEvent))
        return self.summary.runtime_seconds or next(steps, 0.0)

    @property
    def findings(self) -> tuple[FindingEvent, ...]:
        """What the diagnosis found, in order."""
        return tuple(e for e in self.events if isinstance(e, FindingEvent))


def find_run(path: Path) -> Path:
    """The run directory that is meant: it, or the one that a file or directory of it lies in.
    Raises OutputError.
    """
    exists = is_so(path.exists)
    around = path.absolute().parents[:2] if exists else ()
    for place in (path, *around):
        if is_so((place / RUN_FILE).is_file):
            return place
    inside = path.glob(f"*/{RUN_FILE}") if exists else ()
    runs = sorted(file.parent.name for file in inside)
    found = "there is no such directory"
    if exists:
        found = f"it has no {RUN_FILE}" if path.is_dir() else "it is a file outside of one"
    raise OutputError(
        f"{path} is not a run directory: {found}",
        hint=f"there are runs in it: {listed(runs)}"
        if runs
        else "name the directory that `train` wrote, as in fine_tuned_models/my_strategy",
    )


def is_so(test: Callable[[], bool]) -> bool:
    """What `Path.exists`, `is_file` or `is_dir` says; False where the place is not ours to look at,
    or its name is too long.
    """
    try:
        return test()
    except OSError:
        return False


def read_run_record(
    root: Path, read_metrics: ReadMetrics = read_what_can_be_read, *, need_events: bool = True
) -> RunRecord:
    """The record of a run directory. need_events False: the events of a run that has a summary are
    left out. Raises OutputError where there is no run, RunError when the disk refuses.
    """
    root = find_run(root)
    reader = _Reader(root)
    run = reader.json_object(RUN_FILE)
    written = run.text("status")
    # One that goes on again still has the summary of how it was stopped.
    summary = None if written == "running" else reader.summary()
    events = reader.events(read_metrics) if summary is None or need_events else ()
    # After the events: they are then not newer than the status that is told with them.
    status = _status(written, root)
    return RunRecord(
        root=root,
        id=run.text("id"),
        status=status,
        title=run.text("title"),
        strategy=run.text("strategy"),
        run_name=run.text("run_name"),
        command=run.text("command"),
        error=run.text("error"),
        started=run.part("started", datetime),
        ended=run.part("ended", datetime),
        resumed=run.part("resumed", tuple[datetime, ...]) or (),
        strategy_sha256=run.text("strategy_sha256"),
        strategy_yaml=reader.text(_STRATEGY),
        seed=run.part("seed", int),
        data_fingerprint=run.text("data_fingerprint"),
        versions=run.part("versions", dict[str, str]) or {},
        decisions=run.part("decisions", tuple[Decision, ...]) or (),
        model=run.part("model", ModelSource),
        data=run.part("data", DataReport),
        hardware=run.part("hardware", Hardware),
        forecast=run.part("forecast", Forecast),
        actual=run.part("actual", Actual),
        comparison=reader.comparison(),
        summary=summarise(events) if summary is None else summary,
        events=events,
        unread=tuple(reader.unread),
        has_model=(root / "final_model").is_dir(),
    )


class _Reader:
    """Reads the files of one run, and notes what cannot be read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.unread: list[str] = []

    def text(self, name: str) -> str:
        """A text file; empty where there is none."""
        if not self._is_file(name):
            return ""
        try:
            return (self._root / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            path = self._root / name
            raise RunError(f"{path} cannot be read: {error.strerror or error}") from error

    def json_object(self, name: str) -> _Object:
        """A file that holds one JSON object; an empty one where there is none."""
        text = self.text(name)
        try:
            value = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self.unread.append(f"{name} is not a JSON object")
            value = {}
        return _Object(name, value, self.unread.append)

    def events(self, read_metrics: ReadMetrics) -> tuple[Event, ...]:
        """The events that can be read."""
        if not self._is_file(METRICS_FILE):
            return ()
        events, problems = read_metrics(self._root / METRICS_FILE)
        if problems:
            self.unread.append(_lines_left_out(problems))
        return tuple(events)

    def summary(self) -> RunSummary | None:
        """Of summary.json; None where there is none that can be read."""
        found = self.json_object(_SUMMARY)
        if not found.values:
            return None
        try:
            summary = RunSummary.from_json(found.values)
        except (LlamafarmError, TypeError, ValueError, AttributeError) as error:
            why = error.summary if isinstance(error, LlamafarmError) else str(error)
            self.unread.append(f"{_SUMMARY}: {why}")
            return None
        return found.read(asdict(summary), RunSummary, _SUMMARY)

    def comparison(self) -> Comparison | None:
        """Of comparison.json."""
        found = self.json_object(_COMPARISON)
        return found.read(found.values, Comparison, _COMPARISON) if found.values else None

    def _is_file(self, name: str) -> bool:
        """Whether there is one that can be read as a whole; a pipe in its place would be waited for
        without end.
        """
        try:
            status = (self._root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self.unread.append(f"{name} cannot be read: {error.strerror or error}")
            return False
        largest = _LARGEST_METRICS if name == METRICS_FILE else _LARGEST_FILE
        if not stat.S_ISREG(status.st_mode):
            self.unread.append(f"{name} is not a file")
        elif status.st_size > largest:
            self.unread.append(f"{name} is larger than {format_bytes(largest)}, and is not read")
        else:
            return True
        return False


@dataclass(frozen=True)
class _Object:
    """A JSON object from a file. tell: takes what cannot be read."""

    file: str
    values: Mapping[str, Any]
    tell: Callable[[str], None]

    def text(self, key: str) -> str:
        """A text; empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def part(self, key: str, kind: type[_Value]) -> _Value | None:
        """A value of any type that pydantic reads; None where there is none."""
        value = self.values.get(key)
        return None if value is None else self.read(value, kind, f"{self.file}: {key}")

    def read(self, value: Any, kind: type[_Value], name: str) -> _Value | None:
        """None, and told, where the value is not of this type: another version wrote it."""
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            self.tell(f"{name} cannot be read ({place + ': ' if place else ''}{first['msg']})")
            return None


def _status(written: str, root: Path) -> str:
    """A run that says `running` and holds no lock has died."""
    return "stopped" if written == "running" and not is_locked(root) else written


def is_locked(root: Path) -> bool:
    """Whether a process holds the lock of a run directory (training/run_directory.py) now."""
    try:
        # A pipe in its place would be waited for without end.
        descriptor = os.open(root / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return False


def _lines_left_out(problems: Sequence[Problem]) -> str:
    """`3 lines of metrics.jsonl are left out, the first of them line 7: …`."""
    first = problems[0]
    line = first.where.rpartition(":")[2]
    count = count_of(len(problems), "line")
    which = "the first of them " if len(problems) > 1 else ""
    verb = "is" if len(problems) == 1 else "are"
    return f"{count} of metrics.jsonl {verb} left out, {which}line {line}: {first.message}"
