from __future__ import annotations

import io

import pytest

from llamafarm.monitoring.events import MessageEvent, WorkEvent
from llamafarm.monitoring.work import WorkProgress, work_line

from .events_of_a_run import step_event
from .test_progress import Clock, ClosedPipe, Terminal

BACK = "\r\x1b[2K"


@pytest.fixture(autouse=True)
def a_plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")


def event(done: int = 1, total: int = 4, what: str = "writing m.gguf") -> WorkEvent:
    return WorkEvent(what=what, done=done, total=total)


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (0, 0, 5.0, "writing m.gguf"),
        (0, 4, 5.0, "writing m.gguf: 0 %"),
        (1, 4, 0.5, "writing m.gguf: 25 %"),
        (1, 4, 5.0, "writing m.gguf: 25 %, eta 0:15"),
        (4, 4, 5.0, "writing m.gguf: 100 %, eta 0:00"),
    ],
)
def test_the_line_says_what_is_known(done: int, total: int, seconds: float, line: str) -> None:
    assert work_line(event(done, total), seconds) == line


def test_a_terminal_shows_the_first_line_at_once_and_then_eight_a_second() -> None:
    terminal, clock = Terminal(), Clock()
    progress = WorkProgress(terminal, clock)
    for hundredth in range(100):
        clock.now = hundredth / 100
        progress.handle(event(hundredth, 100))
    painted = terminal.getvalue().split(BACK)
    assert painted[:2] == ["", "writing m.gguf: 0 %"]
    assert 6 <= len(painted) - 1 <= 9
    assert "\n" not in terminal.getvalue()


def test_the_line_goes_away_at_the_end() -> None:
    terminal = Terminal()
    progress = WorkProgress(terminal, Clock())
    progress.handle(event())
    progress.close()
    assert terminal.getvalue().endswith("25 %" + BACK)
    progress.close()
    assert terminal.getvalue().count(BACK) == 2


def test_nothing_that_was_painted_is_nothing_to_take_away() -> None:
    terminal = Terminal()
    WorkProgress(terminal, Clock()).close()
    assert terminal.getvalue() == ""


def test_another_piece_of_work_shows_at_once_with_a_clock_of_its_own() -> None:
    terminal, clock = Terminal(), Clock()
    progress = WorkProgress(terminal, clock)
    progress.handle(event())
    clock.now = 100.0
    progress.handle(event(1, 4, "asking llama.cpp"))
    clock.now = 102.0
    progress.handle(event(2, 4, "asking llama.cpp"))
    assert terminal.getvalue().split(BACK)[2:] == [
        "asking llama.cpp: 25 %",
        "asking llama.cpp: 50 %, eta 0:02",
    ]


def test_a_message_stands_above_the_line_and_stays() -> None:
    terminal, clock = Terminal(), Clock(tick=1.0)
    progress = WorkProgress(terminal, clock)
    progress.handle(event())
    progress.handle(MessageEvent(level="notice", text="general questions are asked instead"))
    progress.handle(event(2))
    assert terminal.getvalue() == (
        f"{BACK}writing m.gguf: 25 %{BACK}notice: general questions are asked instead\n"
        f"{BACK}writing m.gguf: 50 %, eta 0:01"
    )


def test_a_line_is_never_wider_than_the_terminal() -> None:
    terminal = Terminal()
    WorkProgress(terminal, Clock()).handle(event(what="writing " + "x" * 200))
    assert len(terminal.getvalue().removeprefix(BACK)) == 59


def test_a_name_cannot_steer_the_terminal() -> None:
    terminal = Terminal()
    WorkProgress(terminal, Clock()).handle(event(what="writing \x1b[2J"))
    assert "\x1b[2J" not in terminal.getvalue()


def test_elsewhere_a_line_is_written_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = WorkProgress(stream, clock)
    for second in range(26):
        clock.now = float(second)
        progress.handle(event(second, 26))
    progress.close()
    assert stream.getvalue().splitlines() == [
        "writing m.gguf: 38 %, eta 0:16",
        "writing m.gguf: 77 %, eta 0:06",
    ]


def test_work_that_is_soon_done_says_nothing_elsewhere() -> None:
    stream, clock = io.StringIO(), Clock(tick=3.0)
    progress = WorkProgress(stream, clock)
    for what in ("loading", "writing", "asking"):
        progress.handle(event(what=what))
        progress.handle(event(what=what))
    assert stream.getvalue() == ""


def test_events_that_tell_a_person_nothing_are_passed_over() -> None:
    stream = io.StringIO()
    progress = WorkProgress(stream, Clock())
    progress.handle(MessageEvent(level="info", text="hello"))
    assert stream.getvalue() == "hello\n"
    progress.handle(step_event(1))
    assert "\x1b" not in stream.getvalue()


def test_a_stream_that_is_gone_is_no_error() -> None:
    progress = WorkProgress(ClosedPipe(), Clock())
    progress.handle(event())
    progress.handle(MessageEvent(level="notice", text="x"))
    progress.close()
