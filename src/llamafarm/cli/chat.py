"""`llamafarm chat`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from llamafarm.cli.options import Source
from llamafarm.cli.output import say, stream_result

EXAMPLE = """
llamafarm chat fine_tuned_models/demo3_quick
"""
_PROMPT = "> "
_END = "/exit"


def command(source: Source) -> None:
    """Talk to a trained model, through the chat template it was trained with.

    A line is a message. /exit or Ctrl-D ends. Without a terminal, the lines of stdin are the
    messages.
    """
    from llamafarm import api

    session = api.chat(source)
    messages = _typed_messages() if sys.stdin.isatty() else _piped_messages()
    for message in messages:
        session.send(message, stream_result)
        stream_result("\n")


def _typed_messages() -> Iterator[str]:
    """With line editing where Python has it; the prompt is talk, so it is on stderr if need be."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # input() edits lines once it is imported
    say(f"{_END} or Ctrl-D ends")
    while True:
        try:
            message = _ask().strip()
        except EOFError:
            say("")
            return
        if message == _END:
            return
        if message:
            yield message


def _ask() -> str:
    if sys.stdout.isatty():
        return input(_PROMPT)
    sys.stderr.write(_PROMPT)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _piped_messages() -> Iterator[str]:
    for line in sys.stdin:
        message = line.strip()
        if message == _END:
            return
        if message:
            yield message
