from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data.quality.scripts import makeup


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The liver stores some sugar.", "Latin"),
        ("Bluthochdruck gehört behandelt.", "Latin"),
        ("Высокое давление", "Cyrillic"),
        ("高血压是一种常见的病", "Han"),
        ("高血圧は自覚症状が少ない", "Japanese"),
        ("고혈압은 증상이 없다", "Hangul"),
        ("ارتفاع ضغط الدم", "Arabic"),
        ("उच्च रक्तचाप आम है", "Devanagari"),
        ("Υψηλή αρτηριακή πίεση", "Greek"),
        ("ความดันโลหิตสูง", "Thai"),
        ("לחץ דם גבוה מאוד", "Hebrew"),
        ("Use the word 高血压 in a sentence.", "Latin"),
        ("1 + 1 = 2, 3 * 4 = 12, 12345678901234567890", ""),
        ("Yes", ""),
        ("да", ""),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert makeup(text).script == script


@given(st.text())
def test_digits_are_counted_in_any_text(text: str) -> None:
    assert makeup(text).digits == sum(char in "0123456789" for char in text)


@given(st.text(st.characters(categories=["Cc", "Cs", "L", "Nd", "Zs"]), max_size=40))
def test_controls_are_seen_in_any_text(text: str) -> None:
    controls = any((ord(c) < 32 and c not in "\t\n\r") or 127 <= ord(c) < 160 for c in text)
    halves = any("\ud800" <= c <= "\udfff" for c in text)
    beyond = any(ord(c) > 0xFFFF for c in text)
    assert makeup(text).unseen == (controls or halves or beyond)
