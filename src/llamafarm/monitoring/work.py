"""A piece of work that is no run (a conversion, a certificate), as a person sees it on stderr."""

from __future__ import annotations

import time
from typing import TextIO

from llamafarm.monitoring.console import (
    is_live_terminal,
    make_encodable,
    make_printable,
    terminal_width,
    write_text,
)
from llamafarm.monitoring.events import Event, WorkEvent
from llamafarm.monitoring.formats import format_duration
from llamafarm.monitoring.lines import event_line
from llamafarm.monitoring.progress import Clock
from llamafarm.monitoring.run_state import RunState

_SECONDS_BETWEEN_PAINTS = 0.125
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BEFORE_AN_ETA = 1.0
_BACK_AND_CLEAR = "\r\x1b[2K"


class WorkProgress:
    """One line that is painted over while something is done, on a terminal; elsewhere a line every
    ten seconds. Messages stand above it and stay. A stream that is gone is no error.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._live = is_live_terminal(stream)
        self._what = ""
        self._started = 0.0
        self._next = 0.0
        self._painted = False

    def handle(self, event: Event) -> None:
        """Show what the event says."""
        try:
            self._show(event)
        except OSError:
            self._live = False

    def close(self) -> None:
        """Take the line off the screen."""
        try:
            self._clear()
        except OSError:
            self._live = False

    def _show(self, event: Event) -> None:
        if not isinstance(event, WorkEvent):
            line = event_line(event, RunState())
            if line is not None:
                self._clear()
                write_text(self._stream, line, wrap=True)
            return
        now = self._clock()
        if event.what != self._what:
            self._what, self._started = event.what, now
            self._next = now + (0.0 if self._live else _SECONDS_BETWEEN_LINES)
        if now < self._next:
            return
        self._next = now + (_SECONDS_BETWEEN_PAINTS if self._live else _SECONDS_BETWEEN_LINES)
        line = work_line(event, now - self._started)
        if self._live:
            shown = make_encodable(self._stream, make_printable(line))[: terminal_width()]
            self._stream.write(_BACK_AND_CLEAR + shown)
            self._stream.flush()
            self._painted = True
        else:
            write_text(self._stream, line)

    def _clear(self) -> None:
        if self._painted:
            self._stream.write(_BACK_AND_CLEAR)
            self._stream.flush()
            self._painted = False


def work_line(event: WorkEvent, seconds: float) -> str:
    """`writing my-model-Q8_0.gguf: 42 %, eta 0:03`. seconds: since this work began."""
    if not event.total:
        return event.what
    share = event.done / event.total
    line = f"{event.what}: {100 * share:.0f} %"
    if seconds < _SECONDS_BEFORE_AN_ETA or not share:
        return line
    return f"{line}, eta {format_duration(seconds / share - seconds)}"
