"""Text for people, on a terminal or not: house colours, safe characters."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_STYLES: tuple[tuple[str, str], ...] = (
    (r"(?m)^error:", "bold red"),
    (r"(?m)^stopped:", "bold yellow"),
    (r"(?m)^\s*(?:[\w.]+ +)?warning\b:?", "yellow"),
    (r"(?m)^\s*(?:hint|notice):", "cyan"),
    (r"(?m)(?<=, )best$", "green"),
    (r"\((?:-|\+)[\d.]+ %\)", "bold"),
    (r"[\u2801-\u28ff]+", "cyan"),
    (r"━+", "green"),
    (r"(?<=[━ ])─+(?= )", "dim"),
    (r"◆", "bold magenta"),
    (r"(?m)^ *[\d.]* *[┤│]|^ {7,}└─+", "dim"),
)
_PLAIN_CHARACTERS = str.maketrans({"→": "->", "–": "-", "…": "...", "×": "x", "━": "=", "─": "-"})
_COLUMN_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def is_live_terminal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what was written can be painted over."""
    return stream.isatty() and environ.get("TERM") != "dumb"


def wants_color(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Colour on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return is_live_terminal(stream, environ) and not environ.get("NO_COLOR")


def can_encode(stream: TextIO, text: str) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def terminal_width() -> int:
    """Columns that a line may take."""
    return shutil.get_terminal_size().columns - 1


def make_printable(text: str) -> str:
    """Control characters spelt out: text of a dataset or a model must not steer the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def make_encodable(stream: TextIO, text: str) -> str:
    """The nearest text that the stream can take."""
    if can_encode(stream, text):
        return text
    encoding = stream.encoding or "utf-8"
    return text.translate(_PLAIN_CHARACTERS).encode(encoding, "replace").decode(encoding)


def wrap_columns(text: str, width: int) -> str:
    """Break lines that are too long between words; what follows stands under their last column."""
    return "\n".join(_wrap_line(line, width) for line in text.split("\n"))


def _wrap_line(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    columns = [match.end() for match in _COLUMN_GAP.finditer(line) if match.end() <= width * 2 // 3]
    indent = columns[-1] if columns else len(line) - len(line.lstrip()) + 2
    wrapped = textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(wrapped)


def make_console(stream: TextIO) -> Console:
    """A Rich console that prints what it is given and interprets nothing in it."""
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def unstyled(text: str) -> Text:
    """The text as it is."""
    from rich.text import Text

    return Text(text)


def styled(text: str) -> Text:
    """The text in house colours."""
    result = unstyled(text)
    for pattern, style in _STYLES:
        result.highlight_regex(pattern, style)
    return result


def write_text(stream: TextIO, text: str, *, wrap: bool = False) -> None:
    """Write a block of text and its newline. wrap: break lines too long for a terminal."""
    safe = make_encodable(stream, make_printable(text))
    if wrap and is_live_terminal(stream):
        safe = wrap_columns(safe, terminal_width())
    if wants_color(stream):
        make_console(stream).print(styled(safe), soft_wrap=True)
    else:
        stream.write(safe + "\n")
    stream.flush()


_MARKS, _ASCII_MARKS = ("\u27e6", "\u27e7"), ("[[", "]]")


def write_marked(stream: TextIO, pieces: Iterable[tuple[str, bool]]) -> None:
    """Write text of which some pieces are marked: in colour, or between brackets."""
    if wants_color(stream):
        from rich.text import Text

        line = Text()
        for text, marked in pieces:
            safe = make_encodable(stream, make_printable(text))
            line.append(safe, style="black on green" if marked else "")
        make_console(stream).print(line, soft_wrap=True)
        return
    begin, end = _MARKS if can_encode(stream, "".join(_MARKS)) else _ASCII_MARKS
    whole = "".join(f"{begin}{text}{end}" if marked else text for text, marked in pieces)
    write_text(stream, whole)
