"""What Typer's parser complains about, said as this program says it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import typer

from llamafarm.errors import Problem, UserError

# Typer has carried a parser of its own since 2026; this is the class of its usage errors, and of
# click's before.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def unknown_command(name: str, known: Iterable[str]) -> UserError:
    """The nearest command there is, or where they are listed."""
    hint = did_you_mean(name, known) or "llamafarm --help lists the commands"
    return UserError(f"unknown command `{name}`", hint=hint)


def house_error(error: Any, path: str, command: Any) -> UserError:
    """A usage error of the parser as one of ours. path: what the command is called."""
    hint = ""
    if type(error).__name__ == "NoSuchOption":
        known = [name for p in command.params for name in p.opts if name.startswith("-")]
        message = f"unknown option `{error.option_name}`"
        hint = did_you_mean(error.option_name, known)
    else:
        message = error.format_message().rstrip(".").replace("'", "`")
        message = message[:1].lower() + message[1:]
    return UserError(f"{path}: {message}", hint=hint or f"{path} --help")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean `train`?``, or nothing."""
    nearest = difflib.get_close_matches(name, tuple(known), n=1)
    return f"did you mean `{nearest[0]}`?" if nearest else ""


def problems_error(problems: list[Problem]) -> UserError:
    """All faults of one command line at once."""
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    return UserError(f"the command line has {count}", problems)
