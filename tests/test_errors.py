"""Errors are for the reader."""

from __future__ import annotations

import signal

import pytest

from llamafarm import errors
from llamafarm.errors import Interrupted, LlamafarmError, Problem, UserError, count_of


def test_a_problem_shows_where_what_and_what_to_type() -> None:
    error = UserError(
        "a.yaml has 2 problems",
        [
            Problem("unknown key (got 3)", "a.yaml:9", "x.y", "did you mean `z`?"),
            Problem("broken", "a.yaml:11"),
        ],
        hint="llamafarm schema",
    )
    assert error.render() == (
        "error: a.yaml has 2 problems\n"
        "  a.yaml:9   x.y\n"
        "             unknown key (got 3)\n"
        "             hint: did you mean `z`?\n"
        "  a.yaml:11  broken\n"
        "hint: llamafarm schema"
    )


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("StrategyError", 2),
        ("DataError", 2),
        ("ModelError", 2),
        ("HardwareError", 2),
        ("OutputError", 2),
        ("RunError", 1),
        ("GateRefused", 3),
    ],
)
def test_the_exit_code_comes_from_the_class_and_the_docstring_says_so(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert kind("x").exit_code == code
    assert issubclass(kind, LlamafarmError)
    assert name in str(errors.__doc__)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stop_by_a_signal_is_no_error(number: signal.Signals, code: int) -> None:
    stopped = Interrupted(number, "after step 3", hint="--resume")
    assert stopped.exit_code == code
    assert stopped.signal_name == number.name
    assert stopped.render() == "stopped: after step 3\nhint: --resume"


def test_counts_are_written_in_words_that_fit() -> None:
    assert (count_of(1, "row"), count_of(2000, "row")) == ("1 row", "2,000 rows")
