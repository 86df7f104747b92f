"""The runs of one directory, read again only where something changed.

No path ever comes from a request: a run is asked for by an id that the listing gave it, and what
leads out of the directory is not read.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llamafarm.errors import OutputError
from llamafarm.monitoring.follow import FollowedMetrics
from llamafarm.monitoring.run_overview import RunOverview, overview_of
from llamafarm.monitoring.run_record import (
    RECORD_FILES,
    RunRecord,
    is_locked,
    read_run_record,
)
from llamafarm.run_directories import RunList, find_runs, name_below, overview_runs

# Some 100 MB of events; and the runs that were asked for last, whatever they hold.
_MOST_EVENTS = 200_000
_ALWAYS_KEPT = 8
_ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class _State:
    """What the disk has of a run. files: size and time of each."""

    files: tuple[object, ...] = ()
    is_locked: bool = False

    def is_told_by(self, before: _State, status: str) -> bool:
        """Whether what was read of the state before is still so. status: as it was read then; only
        that of a run that was not ended depends on the lock.
        """
        same_lock = self.is_locked == before.is_locked or status not in ("running", "stopped")
        return self.files == before.files and same_lock


@dataclass(slots=True)
class _Kept:
    """What is known of one run: of which state of its files, in full and as a line of the list."""

    metrics: FollowedMetrics = field(default_factory=FollowedMetrics)
    record_of: _State = _State()
    record: RunRecord | None = None
    line_of: _State = _State()
    line: RunOverview | None = None


class RunLibrary:
    """Every method may be called from any thread; one of them works at a time. called: the
    directory as it was named.
    """

    def __init__(self, directory: Path) -> None:
        self.called = str(directory)
        self.directory = directory.resolve()
        self._lock = threading.Lock()
        self._roots: dict[str, Path] = {}
        # The run that was asked for last is the last one.
        self._kept: dict[Path, _Kept] = {}

    def runs(self) -> RunList:
        """All of them, the newest first. Raises OutputError when the directory is gone."""
        with self._lock:
            return overview_runs(self.directory, self._find(), self._line)

    def id_of(self, root: Path) -> str:
        """By which a run can be asked for."""
        return _id_of(root, self.directory)

    def name_of(self, root: Path) -> str:
        """How a run is called in the list."""
        return name_below(root, self.directory)

    def record(self, run_id: str) -> RunRecord | None:
        """The same object as before while nothing changed; None for an id that no run has. Raises
        LlamafarmError for a run that cannot be read.
        """
        with self._lock:
            if run_id not in self._roots:
                self._find()
            root = self._roots.get(run_id)
            return None if root is None else self._full(root)

    def _find(self) -> Sequence[Path]:
        roots = find_runs(self.directory)
        self._roots = {_id_of(root, self.directory): root for root in roots}
        for root in self._kept.keys() - set(roots):
            del self._kept[root]
        return roots

    def _line(self, root: Path) -> RunOverview:
        """Without the events of a run that ended, which are the most of it."""
        kept = self._kept.setdefault(root, _Kept())
        state = self._state(root)
        if kept.line is None or not state.is_told_by(kept.line_of, kept.line.status):
            record = read_run_record(root, kept.metrics.read, need_events=False)
            kept.line, kept.line_of = overview_of(self.name_of(root), record), state
            self._forget_the_oldest()
        return kept.line

    def _full(self, root: Path) -> RunRecord:
        kept = self._kept[root] = self._kept.pop(root) if root in self._kept else _Kept()
        state = self._state(root)
        if kept.record is None or not state.is_told_by(kept.record_of, kept.record.status):
            kept.record, kept.record_of = read_run_record(root, kept.metrics.read), state
            self._forget_the_oldest()
        return kept.record

    def _state(self, root: Path) -> _State:
        """Raises OutputError where a file leads out of the directory."""
        self._refuse_ways_out(root)
        files = tuple(_stamp(root / name) for name in RECORD_FILES)
        return _State((*files, (root / "final_model").is_dir()), is_locked(root))

    def _refuse_ways_out(self, root: Path) -> None:
        evaluations = root / "evaluations"
        inside = evaluations.iterdir() if evaluations.is_dir() else ()
        for path in (*(root / name for name in RECORD_FILES), evaluations, *inside):
            if not Path(os.path.realpath(path)).is_relative_to(self.directory):
                name = path.relative_to(root)
                raise OutputError(f"{name} leads out of {self.directory}, and is not read")

    def _forget_the_oldest(self) -> None:
        """Events of runs that were not asked for lately, until few enough are held."""
        held = sum(kept.metrics.held for kept in self._kept.values())
        for kept in list(self._kept.values())[:-_ALWAYS_KEPT]:
            if held <= _MOST_EVENTS:
                return
            held -= kept.metrics.held
            kept.metrics, kept.record = FollowedMetrics(), None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _id_of(root: Path, directory: Path) -> str:
    relative = root.relative_to(directory).as_posix()
    return hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:_ID_DIGITS]
