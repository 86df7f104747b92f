"""The run as a person sees it, on stderr: a live display on a terminal, plain lines anywhere else.

A display never costs a run anything: it takes at most a hundredth of the time, and where it cannot
be written any more (a closed pipe, a lost terminal) it goes quiet instead of stopping the training.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from llamafarm.monitoring.console import (
    can_encode,
    is_live_terminal,
    make_console,
    make_encodable,
    make_printable,
    styled,
    terminal_width,
    unstyled,
    wants_color,
    wrap_columns,
    write_text,
)
from llamafarm.monitoring.events import (
    EvalProgressEvent,
    Event,
    Sink,
    StartEvent,
    StepEvent,
)
from llamafarm.monitoring.lines import event_line
from llamafarm.monitoring.run_state import RunState
from llamafarm.monitoring.screen import SCREEN_CHARACTERS, screen_lines

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

Clock = Callable[[], float]

_SECONDS_BETWEEN_PAINTS = 0.125
_SHARE_OF_TIME = 0.01
_SECONDS_BETWEEN_EVAL_LINES = 10.0


def progress_sink(stream: TextIO | None = None) -> Sink:
    """The display that fits the stream; stderr unless given."""
    stream = stream or sys.stderr
    return LiveProgress(stream) if is_live_terminal(stream) else PlainProgress(stream)


class PlainProgress:
    """A line an event. A long evaluation says every ten seconds how far it is."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._state = RunState()
        self._quiet_until = 0.0
        self._gone = False

    def handle(self, event: Event) -> None:
        """Write what the event says."""
        now = self._clock()
        self._state.add(event, now)
        line = self._eval_progress_line(event, now) or event_line(event, self._state)
        if not isinstance(event, EvalProgressEvent):
            self._quiet_until = now + _SECONDS_BETWEEN_EVAL_LINES
        if line is not None and not self._gone:
            try:
                write_text(self._stream, line)
            except OSError:
                self._gone = True

    def close(self) -> None:
        """Nothing is left open."""

    def _eval_progress_line(self, event: Event, now: float) -> str | None:
        if not isinstance(event, EvalProgressEvent) or now < self._quiet_until:
            return None
        self._quiet_until = now + _SECONDS_BETWEEN_EVAL_LINES
        return f"evaluating: {event.rows_done}/{event.rows} rows"


class LiveProgress:
    """One calm screen: a bar, the numbers, both curves. What should be remembered scrolls away
    above it.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._state = RunState()
        self._ascii_only = not can_encode(stream, SCREEN_CHARACTERS)
        self._live: Live | None = None
        self._next_paint = 0.0
        self._gone = False

    def handle(self, event: Event) -> None:
        """Show what the event says."""
        now = self._clock()
        self._state.add(event, now)
        if self._gone:
            return
        try:
            self._show(event, now)
        except OSError:
            self._gone = True

    def close(self) -> None:
        """Take the live part off the screen; the lines above it stay."""
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()

    def _show(self, event: Event, now: float) -> None:
        line = None if isinstance(event, StepEvent) else event_line(event, self._state)
        if line is not None:
            self._print(line)
        if isinstance(event, StartEvent | EvalProgressEvent) and self._live is None:
            self._live = self._open()
        if self._live is not None and (line is not None or now >= self._next_paint):
            self._paint(self._live)
            cost = self._clock() - now
            self._next_paint = now + max(_SECONDS_BETWEEN_PAINTS, cost / _SHARE_OF_TIME)

    def _print(self, line: str) -> None:
        if self._live is None:
            write_text(self._stream, line, wrap=True)
        else:
            wrapped = wrap_columns(line, terminal_width())
            self._live.console.print(self._text(wrapped), soft_wrap=True)

    def _open(self) -> Live:
        from rich.live import Live

        live = Live(console=make_console(self._stream), auto_refresh=False, transient=True)
        live.start()
        # A process that is killed could not bring a hidden cursor back.
        live.console.show_cursor(True)
        return live

    def _paint(self, live: Live) -> None:
        width, height = live.console.size
        lines = screen_lines(self._state, width, height, ascii_only=self._ascii_only)
        live.update(self._text("\n" + "\n".join(lines)), refresh=True)

    def _text(self, text: str) -> Text:
        safe = make_encodable(self._stream, make_printable(text))
        return styled(safe) if wants_color(self._stream) else unstyled(safe)
