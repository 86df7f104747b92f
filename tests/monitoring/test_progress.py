from __future__ import annotations

import io
import re

import pytest

from llamafarm.monitoring.events import Event, MessageEvent
from llamafarm.monitoring.progress import LiveProgress, PlainProgress, progress_sink

from .events_of_a_run import (
    eval_event,
    eval_progress_event,
    events_of_a_run,
    start_event,
    step_event,
)


class Clock:
    """A clock that goes on by `tick` whenever it is read."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now = 0.0
        self.tick = tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedPipe(Terminal):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.fixture(autouse=True)
def a_plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "30")
    monkeypatch.setenv("NO_COLOR", "1")


def paints(terminal: Terminal) -> int:
    return terminal.getvalue().count("training   ") + terminal.getvalue().count("evaluating  ")


def lines_of(terminal: io.StringIO) -> list[str]:
    return [
        line.rstrip()
        for line in re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue()).splitlines()
    ]


def test_a_terminal_gets_the_live_display_and_a_file_gets_lines() -> None:
    assert isinstance(progress_sink(Terminal()), LiveProgress)
    assert isinstance(progress_sink(io.StringIO()), PlainProgress)


def test_a_file_gets_a_line_for_every_event_worth_one() -> None:
    stream = io.StringIO()
    sink = PlainProgress(stream, Clock(tick=1.0))
    for event in events_of_a_run():
        sink.handle(event)
    sink.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(events_of_a_run())
    assert lines[0].startswith("training 460,800 parameters")
    assert lines[2].startswith("step 1/12  loss 2.150")
    assert lines[-1] == "completed at step 12 after 1:01"
    assert "\x1b" not in stream.getvalue()


def test_a_long_evaluation_tells_a_file_every_ten_seconds_how_far_it_is() -> None:
    stream, clock = io.StringIO(), Clock()
    sink = PlainProgress(stream, clock)
    sink.handle(start_event())
    for second in range(1, 26):
        clock.now = float(second)
        sink.handle(eval_progress_event(second % 10))
    assert stream.getvalue().splitlines()[1:] == [
        "evaluating: 0/10 rows",
        "evaluating: 0/10 rows",
    ]


@pytest.mark.parametrize("kind", [PlainProgress, LiveProgress])
def test_a_display_that_cannot_be_written_never_stops_a_run(
    kind: type[PlainProgress] | type[LiveProgress],
) -> None:
    sink = kind(ClosedPipe(), Clock(tick=1.0))
    for event in events_of_a_run():
        sink.handle(event)
    sink.close()


def test_evaluations_scroll_above_the_live_display_and_steps_do_not() -> None:
    terminal = Terminal()
    sink = LiveProgress(terminal, Clock(tick=1.0))
    for event in events_of_a_run():
        sink.handle(event)
    sink.close()
    lines = lines_of(terminal)
    assert sum(line.startswith("eval at step") for line in lines) == 4
    assert not any(line.startswith("step ") for line in lines)


def test_the_live_part_is_gone_at_the_end_and_the_cursor_is_back() -> None:
    terminal = Terminal()
    sink = LiveProgress(terminal, Clock(tick=1.0))
    for event in events_of_a_run():
        sink.handle(event)
    sink.close()
    sink.close()
    written = terminal.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert written.rindex("\x1b[2K") > written.rindex("step 12/12")


def test_the_cursor_is_never_hidden_while_a_run_may_be_killed() -> None:
    terminal = Terminal()
    LiveProgress(terminal, Clock(tick=1.0)).handle(start_event())
    written = terminal.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_fast_steps_are_not_painted_one_by_one() -> None:
    terminal, clock = Terminal(), Clock()
    sink = LiveProgress(terminal, clock)
    sink.handle(start_event(total_steps=10_000))
    painted = paints(terminal)
    for step in range(1, 1001):
        clock.now = step / 1000
        sink.handle(step_event(step))
    assert paints(terminal) - painted == 8


def test_painting_takes_at_most_a_hundredth_of_the_time() -> None:
    terminal, clock = Terminal(), Clock(tick=0.02)
    sink = LiveProgress(terminal, clock)
    sink.handle(start_event(total_steps=10_000))
    painted = paints(terminal)
    while clock.now < 60:
        clock.now += 0.5
        sink.handle(step_event(1))
    assert 20 <= paints(terminal) - painted <= 60 / (0.02 / 0.01)


def test_messages_before_the_start_are_plain_lines() -> None:
    terminal = Terminal()
    sink = LiveProgress(terminal, Clock())
    sink.handle(MessageEvent(level="notice", text="the packaged copy stands in"))
    assert terminal.getvalue() == "notice: the packaged copy stands in\n"


def test_an_evaluation_before_the_start_shows_its_progress() -> None:
    terminal = Terminal()
    sink = LiveProgress(terminal, Clock(tick=1.0))
    sink.handle(eval_progress_event(5, step=0))
    sink.handle(eval_event(0, 2.2))
    sink.close()
    assert "row 5/10" in terminal.getvalue()


def test_text_of_a_message_cannot_steer_the_terminal() -> None:
    events: list[Event] = [start_event(), MessageEvent(level="info", text="\x1b[2Jgone")]
    for kind in (PlainProgress, LiveProgress):
        terminal = Terminal()
        sink = kind(terminal, Clock(tick=1.0))
        for event in events:
            sink.handle(event)
        assert "\\x1b[2Jgone" in terminal.getvalue()
