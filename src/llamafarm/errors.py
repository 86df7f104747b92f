"""What can go wrong, and the exit code of each (the contract, section 2).

LlamafarmError
├── UserError                 2    the input is at fault: flags, strategy, data, model name, output
directory
│   ├── StrategyError              a strategy file, or the values in it
│   ├── DataError                  a dataset file, or the rows in it
│   ├── ModelError                 a base model that cannot be had, or cannot be used
│   ├── HardwareError              a device or a precision that this machine does not have
│   └── OutputError                an output directory that is in use, not empty, or not writable
├── RunError                  1    the run failed: diverged, out of memory, disk full
├── GateRefused               3    a gate said no
└── Interrupted       130/143/129  stopped by a signal, after saving

Anything else that escapes is a defect of ours: exit code 70 and a traceback in a log file.
This module imports nothing heavy, so that the command line can.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXIT_OK = 0
EXIT_RUN_FAILED = 1
EXIT_USER = 2
EXIT_GATE = 3
EXIT_DEFECT = 70


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault, for the reader: where it is, what was found, what is allowed, what to type next.

    where: `file:line` where there is one; path: the dotted path of a key, or the field of a row.
    """

    message: str
    where: str = ""
    path: str = ""
    hint: str = ""


class LlamafarmError(Exception):
    """An expected failure: shown as text with its hint, never as a traceback."""

    exit_code = EXIT_RUN_FAILED

    def __init__(self, summary: str, problems: Iterable[Problem] = (), *, hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.hint = hint

    def render(self) -> str:
        """The text that goes to stderr."""
        lines = [f"error: {self.summary}"]
        lines += _render_problems(self.problems)
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class UserError(LlamafarmError):
    """The user's input is at fault."""

    exit_code = EXIT_USER


class StrategyError(UserError):
    """A strategy file, or the values in it, cannot be used."""


class DataError(UserError):
    """A dataset, or rows of it, cannot be used."""


class ModelError(UserError):
    """A base model cannot be had or cannot be used."""


class HardwareError(UserError):
    """A device or precision was asked for that this machine does not have."""


class OutputError(UserError):
    """The output directory is in use, not empty, or cannot be written."""


class RunError(LlamafarmError):
    """The run itself failed; what had been saved stays usable."""


class GateRefused(LlamafarmError):  # noqa: N818  # a refusal is the answer
    """A gate (leakage, parity, a requested threshold) said no."""

    exit_code = EXIT_GATE


class Interrupted(LlamafarmError):  # noqa: N818  # nothing went wrong
    """A signal stopped the run, after it saved what it had."""

    def __init__(self, signal_number: int, summary: str, *, hint: str = "") -> None:
        super().__init__(summary, hint=hint)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    @property
    def signal_name(self) -> str:
        """Name of the signal, e.g. SIGTERM."""
        return signal.Signals(self.signal_number).name

    def render(self) -> str:
        """Not an error: the user asked for it."""
        return "\n".join(
            [f"stopped: {self.summary}", *([f"hint: {self.hint}"] if self.hint else [])]
        )


def _render_problems(problems: Sequence[Problem]) -> list[str]:
    """Two columns: where, then the path over the message and the hint."""
    width = max((len(p.where) for p in problems), default=0)
    indent = " " * (width + 4 if width else 2)
    lines: list[str] = []
    for problem in problems:
        texts = [problem.path] if problem.path else []
        texts += problem.message.splitlines()
        texts += [f"hint: {problem.hint}"] if problem.hint else []
        head = f"  {problem.where:<{width}}  " if width else "  "
        lines.append(head + texts[0])
        lines += [indent + text for text in texts[1:]]
    return lines


def count_of(number: int, noun: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
