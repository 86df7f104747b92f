from __future__ import annotations

import io

import pytest

from llamafarm.monitoring.console import (
    can_encode,
    is_live_terminal,
    make_printable,
    styled,
    wants_color,
    wrap_columns,
    write_text,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stream_with_encoding(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def test_a_terminal_gets_colour_unless_it_is_not_wanted() -> None:
    terminal = Terminal()
    assert wants_color(terminal, {})
    assert wants_color(terminal, {"NO_COLOR": ""})
    assert not wants_color(terminal, {"NO_COLOR": "1"})
    assert not wants_color(terminal, {"TERM": "dumb"})
    assert not wants_color(io.StringIO(), {})


def test_no_color_still_allows_a_live_display() -> None:
    assert is_live_terminal(Terminal(), {"NO_COLOR": "1"})
    assert not is_live_terminal(Terminal(), {"TERM": "dumb"})
    assert not is_live_terminal(io.StringIO(), {})


def test_text_for_a_file_has_no_escape_sequences() -> None:
    stream = io.StringIO()
    write_text(stream, "error: oh\nhint: try [bold]this[/bold] :smile:")
    assert stream.getvalue() == "error: oh\nhint: try [bold]this[/bold] :smile:\n"


def test_text_on_a_terminal_is_coloured_and_otherwise_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    text = "error: " + "long " * 60 + "[bold]end[/bold]"
    write_text(stream, text)
    written = stream.getvalue()
    assert written.startswith("\x1b[1;31merror:\x1b[0m")
    assert written.replace("\x1b[1;31m", "").replace("\x1b[0m", "") == text + "\n"


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert make_printable("a\x1b[2Jb\rc\x9bd\te\nf") == "a\\x1b[2Jb\\x0dc\\x9bd\te\nf"


def test_what_the_encoding_lacks_is_written_with_what_it_has() -> None:
    stream = stream_with_encoding("ascii")
    write_text(stream, "2.231 → 1.839 – größer")
    stream.seek(0)
    assert stream.read() == "2.231 -> 1.839 - gr??er\n"


def test_braille_needs_an_encoding_that_has_it() -> None:
    assert can_encode(stream_with_encoding("utf-8"), "⣿")
    assert not can_encode(stream_with_encoding("latin-1"), "⣿")


def test_long_lines_break_between_words_under_their_last_column() -> None:
    line = "  precision  no  detected  bf16 is emulated on this processor: many times slower"
    assert wrap_columns(f"short\n{line}\n", 50).splitlines() == [
        "short",
        "  precision  no  detected  bf16 is emulated on",
        "                           this processor: many",
        "                           times slower",
    ]
    assert wrap_columns("notice: " + "word " * 6, 20).splitlines()[1].startswith("  word")


def test_a_word_that_is_too_long_stays_whole() -> None:
    path = "/a/very/long/path/" + "x" * 60
    assert path in wrap_columns(f"saved {path}", 40).split()


def test_lines_for_a_file_are_never_broken() -> None:
    stream = io.StringIO()
    write_text(stream, "word " * 100, wrap=True)
    assert stream.getvalue().count("\n") == 1


def test_only_words_of_ours_are_coloured() -> None:
    spans = styled("error: the hint: is not one\nhint: this is").spans
    assert [(span.start, span.end) for span in spans] == [(0, 6), (28, 33)]
