"""A value on its way from where it was written to its place in the strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamafarm.errors import Problem
from llamafarm.strategy.keys import CONFIG, Key
from llamafarm.strategy.model import Notice, Origin

FLAG_LAYER = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """One value for one canonical path.

    layer: 0 for a flag, 1 for the strategy itself, 2 and up for what it extends; rank: which of
    two in a layer wins (low before high); path: as written, from the strategy's root; written: the
    value as messages show it; is_null: left out on purpose, which also undoes what was inherited.
    """

    target: str
    value: object
    key: Key
    layer: int
    rank: int
    path: str
    written: str
    origin: Origin
    is_null: bool = False

    @property
    def is_flag(self) -> bool:
        """Whether it was typed on the command line."""
        return self.layer == FLAG_LAYER

    @property
    def short_path(self) -> str:
        """The path as written, without the way down to the fine-tuner's `config`."""
        return self.path.removeprefix(CONFIG)

    @property
    def where(self) -> str:
        """`file:line`, or the flag as typed."""
        origin = self.origin
        return origin.text if self.is_flag else f"{origin.file}:{origin.line}"

    @property
    def full_path(self) -> str:
        """The path in the file, beginning with the strategy's id."""
        return self.path if self.is_flag else f"{self.origin.strategy_id}.{self.path}"

    def cited(self) -> str:
        """How another line refers to it: `training_args.bf16: true (line 12)`."""
        if self.is_flag:
            return self.origin.text
        return f"{self.short_path}: {self.written} (line {self.origin.line})"


@dataclass(frozen=True, slots=True)
class Findings:
    """What is to be said about a strategy: faults, and lines that do not stop it."""

    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.problems + other.problems, self.notices + other.notices)


Values = Mapping[str, Assignment]


def warning(about: Assignment, message: str) -> Findings:
    """A line that should not be missed."""
    return _said(about, message, severity_is_warning=True)


def remark(about: Assignment, message: str) -> Findings:
    """A line that explains what became of a value."""
    return _said(about, message, severity_is_warning=False)


def fault(about: Assignment, message: str, hint: str = "") -> Findings:
    """A value that cannot stand."""
    problem = Problem(message, where=about.where, path=about.full_path, hint=hint)
    return Findings(problems=(problem,))


def _said(about: Assignment, message: str, *, severity_is_warning: bool) -> Findings:
    notice = Notice(
        path=about.full_path,
        message=message,
        where=about.where,
        severity="warning" if severity_is_warning else "notice",
    )
    return Findings(notices=(notice,))
