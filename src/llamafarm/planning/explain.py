"""Who wrote a value of a strategy, and the decision that says so."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from llamafarm.decision import Decision, place, written
from llamafarm.errors import Problem
from llamafarm.strategy.model import Strategy


def is_written(strategy: Strategy, path: str) -> bool:
    """Whether somebody wrote the value at this dotted path, in a file, as a flag or in a
    program.
    """
    section: object = strategy
    *parents, leaf = path.split(".")
    for name in parents:
        section = getattr(section, name)
    if not isinstance(section, BaseModel):
        raise TypeError(f"{path} is not a path in a strategy")
    if strategy.origin(path) is not None:
        return True
    default = type(section).model_fields[leaf].get_default(call_default_factory=True)
    return leaf in section.model_fields_set and getattr(section, leaf) != default


def asked(strategy: Strategy, path: str, value: object, note: str = "") -> Decision:
    """The decision for a value that is taken as somebody wrote it."""
    return written(path, shown(value), strategy.origin(path), note)


def settled(strategy: Strategy, path: str, value: object) -> Decision:
    """The decision for a value whose default is a constant: written, or that default."""
    if is_written(strategy, path):
        return asked(strategy, path, value)
    return Decision(path, shown(value), "default", "")


def warning(path: str, value: object, text: str) -> Decision:
    """A line that a person should not miss."""
    return Decision(path, shown(value), "warning", text)


def notice(path: str, value: object, text: str) -> Decision:
    """A line that is good to know."""
    return Decision(path, shown(value), "notice", text)


def problem(strategy: Strategy, path: str, message: str, hint: str = "") -> Problem:
    """A fault of the value at this path, with the place where it was written."""
    return Problem(message, where=place(strategy.origin(path)), path=path, hint=hint)


def whereabouts(strategy: Strategy, path: str) -> str:
    """The path, with the line or flag where it was written."""
    origin = strategy.origin(path)
    return path if origin is None else f"{path} ({origin.describe()})"


def shown(value: object) -> str:
    """A value as it is printed: as YAML would write it, numbers without digits that mean
    nothing.
    """
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case float():
            short = f"{value:g}"
            return short if float(short) == value else repr(value)
        case tuple() | list():
            return ", ".join(shown(item) for item in value) or "none"
        case Path():
            return str(value)
    return str(value)
