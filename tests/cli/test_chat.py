from __future__ import annotations

import io
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]


class Session:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def send(self, text: str, on_text: Callable[[str], None]) -> str:
        self.heard.append(text)
        on_text("You said ")
        on_text(text)
        return f"You said {text}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def session(fake_api: Fake) -> Session:
    session = Session()
    fake_api("chat", session)
    return session


def test_lines_of_stdin_are_messages(
    llamafarm: Run, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n\n  bye  \n"))
    assert llamafarm("chat", "run") == Done(0, "You said hello\nYou said bye\n", "")
    assert session.heard == ["hello", "bye"]


def test_exit_ends_a_piped_chat(
    llamafarm: Run, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/exit\nnever\n"))
    assert llamafarm("chat", "run").code == 0
    assert session.heard == ["hello"]


@pytest.mark.parametrize("end", ["/exit\n", ""], ids=["exit", "ctrl-d"])
def test_a_person_is_asked_on_stderr_when_stdout_is_a_file(
    llamafarm: Run, session: Session, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("hello\n\n" + end))
    done = llamafarm("chat", "run")
    assert (done.code, done.out) == (0, "You said hello\n")
    assert done.err.startswith("/exit or Ctrl-D ends\n> ")
    assert session.heard == ["hello"]


def test_a_person_at_a_terminal_is_asked_with_line_editing(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llamafarm.cli.main import main

    asked: list[str] = []
    answers = iter(["hello", "/exit"])

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return next(answers)

    screen = Terminal()
    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stdout", screen)
    assert main(["chat", "run"]) == 0
    assert (asked, screen.getvalue()) == (["> ", "> "], "You said hello\n")
