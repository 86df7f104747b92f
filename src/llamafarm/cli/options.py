"""Flags that several commands have, and how a flag becomes an override of the strategy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from llamafarm.cli.usage import problems_error
from llamafarm.errors import Problem, UserError

if TYPE_CHECKING:
    from llamafarm.strategy.overrides import Override

_Value = TypeVar("_Value")

StrategyFile = Annotated[
    Path | None,
    typer.Option(
        "--strategy-file",
        metavar="FILE",
        help="The file the strategy is in. Left out: strategies.yaml here, else the bundled one.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON value, for programs.")
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run directory, final_model/, checkpoint-N/, an adapter, or a model.",
        show_default=False,
    ),
]

AllowLeakage = Annotated[
    bool,
    typer.Option("--allow-leakage", help="Go on although training rows give evaluation rows away."),
]

AllowCustomMetrics = Annotated[
    bool,
    typer.Option(
        "--allow-custom-metrics",
        help="Import and run functions of your own that are named as metrics.",
    ),
]


@dataclass(frozen=True, slots=True)
class FlagValue:
    """A flag as it was typed, or None. path: the key of the strategy that it sets."""

    flag: str
    text: str | None
    path: str

    @property
    def shown(self) -> str:
        """As it was typed; a switch has no value."""
        return self.flag if self.text == "true" else f"{self.flag} {self.text}"


def allowed_leakage(given: bool) -> FlagValue:
    """`--allow-leakage` as a key of the strategy."""
    return FlagValue("--allow-leakage", "true" if given else None, "dataset.allow_leakage")


def overrides_of(flags: Sequence[FlagValue], settings: Sequence[str]) -> tuple[Override, ...]:
    """Overrides for the flags that were given, then for every `--set path=value`.

    The strategy checks the values, as it checks those of a file. Raises UserError that names every
    `--set` which is not path=value.
    """
    from llamafarm.strategy.overrides import Override, parse_set

    overrides = [
        Override(flag.path, flag.text, flag.shown) for flag in flags if flag.text is not None
    ]
    problems: list[Problem] = []
    for setting in settings:
        try:
            overrides.append(parse_set(setting))
        except UserError as error:
            problems += error.problems
    if problems:
        raise problems_error(problems)
    return tuple(overrides)


def read_flag(flag: str, text: str, read: Callable[[str], _Value]) -> _Value:
    """The value of a flag. Raises UserError with what `read` expected (its ValueError)."""
    try:
        return read(text)
    except ValueError as error:
        raise problems_error([Problem(f'{error} (got "{text}")', where=flag)]) from None


def whole_number(text: str) -> int:
    """Raises ValueError that says what is expected."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected a whole number") from None


def row_count(text: str) -> int:
    """At least 0."""
    value = whole_number(text)
    if value < 0:
        raise ValueError("expected a whole number of at least 0")
    return value


def positive_whole_number(text: str) -> int:
    """At least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ValueError("expected a whole number of at least 1")
    return value


def non_negative_number(text: str) -> float:
    """At least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("expected a number of at least 0")
    return value
