"""`metrics.jsonl` of a run that goes on, read as it grows."""

from __future__ import annotations

import os
from pathlib import Path

from llamafarm.errors import Problem, RunError
from llamafarm.monitoring.events import Event
from llamafarm.monitoring.metrics_file import read_lines

# Enough to see that a file is not the one that was read before: a line ends with its speeds.
_COMPARED_BYTES = 200


class FollowedMetrics:
    """Every call reads what is new. A file that was replaced or cut, as a resume does, is read
    again from its beginning; a last line without its newline waits.
    """

    def __init__(self) -> None:
        self._start_again()

    def _start_again(self) -> None:
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._end = b""
        self._lines = 0
        self._events: list[Event] = []
        self._problems: list[Problem] = []

    @property
    def held(self) -> int:
        """How many events are held in memory."""
        return len(self._events)

    def read(self, path: Path) -> tuple[list[Event], list[Problem]]:
        """All events so far, and a problem for every line that is none; nothing where there is no
        file. Raises RunError when the disk refuses.
        """
        try:
            new = self._new_bytes(path)
        except FileNotFoundError:
            self._start_again()
            return [], []
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
        *lines, _ = new.split(b"\n")
        events, problems = read_lines(lines, path, self._lines + 1)
        read = new.rfind(b"\n") + 1
        self._offset += read
        self._end = (self._end + new[:read])[-_COMPARED_BYTES:]
        self._lines += len(lines)
        self._events += events
        self._problems += problems
        return list(self._events), list(self._problems)

    def _new_bytes(self, path: Path) -> bytes:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            before = os.pread(file.fileno(), len(self._end), self._offset - len(self._end))
            if self._file != (status.st_dev, status.st_ino) or before != self._end:
                self._start_again()
                self._file = (status.st_dev, status.st_ino)
            file.seek(self._offset)
            return file.read()
