from __future__ import annotations

import math

import pytest

from llamafarm.monitoring.formats import (
    format_bytes,
    format_duration,
    format_gap,
    format_loss,
    format_perplexity,
    format_rate,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (41.4, "0:41"), (59.6, "1:00"), (725, "12:05"), (10930, "3:02:10")],
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_an_unknown_duration_is_a_question_mark(seconds: float) -> None:
    assert format_duration(seconds) == "?"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 1024**3 // 2, "1.5 GiB")],
)
def test_bytes_are_counted_in_powers_of_1024(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_even_a_petabyte_has_a_text() -> None:
    assert format_bytes(1024**5) == "1024.0 TiB"


def test_a_gap_has_a_sign_and_nothing_is_never_negative() -> None:
    assert (format_gap(0.0414), format_gap(-0.3), format_gap(-0.0004)) == (
        "+0.041",
        "-0.300",
        "+0.000",
    )


def test_losses_and_speeds_have_the_digits_that_mean_something() -> None:
    assert (format_loss(1.8341), format_loss(None)) == ("1.834", "?")
    assert (format_rate(182.4), format_rate(9.14), format_rate(12345)) == (
        "182 tok/s",
        "9.1 tok/s",
        "12,345 tok/s",
    )
    assert (format_perplexity(6.2871), format_perplexity(49152.0), format_perplexity(math.inf)) == (
        "6.29",
        "4.92e+04",
        "inf",
    )
