"""Results go to stdout, talk goes to stderr."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from llamafarm.monitoring.console import make_encodable, make_printable, write_marked, write_text
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.redact import redact


class OutputClosed(Exception):  # noqa: N818  # the reader has enough: nobody's error
    """Whoever read our output is gone (`llamafarm … | head`)."""


def result(text: str, *, wrap: bool = False) -> None:
    """What was asked for, on stdout. wrap: break long lines on a terminal; not those to copy."""
    with _reader_may_leave():
        write_text(sys.stdout, text, wrap=wrap)


def result_marked(pieces: Iterable[tuple[str, bool]]) -> None:
    """Text of which some pieces are marked, on stdout."""
    with _reader_may_leave():
        write_marked(sys.stdout, pieces)


def result_json(value: Any) -> None:
    """What was asked for, for a program: one JSON value on stdout."""
    with _reader_may_leave():
        sys.stdout.write(json.dumps(to_jsonable(value), indent=2, allow_nan=False) + "\n")


def stream_result(text: str) -> None:
    """A piece of an answer, as soon as it is there."""
    with _reader_may_leave():
        sys.stdout.write(make_encodable(sys.stdout, make_printable(text)))
        sys.stdout.flush()


def flush_result() -> None:
    """Everything is out before the exit code says so."""
    with _reader_may_leave():
        sys.stdout.flush()


def say(text: str, *, wrap: bool = False) -> None:
    """What a person may want to know, on stderr; a reader who has gone away is not an error."""
    with contextlib.suppress(OSError):
        write_text(sys.stderr, redact(text), wrap=wrap)


def never_write_again() -> None:
    """Python flushes stdout when it ends: let that go nowhere, instead of failing once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_missing_streams() -> None:
    """Whoever started us with a closed stdin, stdout or stderr (`>&-`) wants nothing of it: it
    leads nowhere, and no file that is opened later takes its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free: that of the closed one.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # A pipe that was closed, or a terminal that is gone.
        if error.errno in (errno.EPIPE, errno.EIO):
            raise OutputClosed from None
        raise
