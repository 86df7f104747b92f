from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data.documents.text_repair import (
    CONTROLS,
    INVISIBLE,
    MOJIBAKE,
    SPACES,
    UNICODE_FORM,
    repair_text,
)


@pytest.mark.parametrize(
    ("broken", "whole", "repair"),
    [
        ("itâ€™s a cafÃ©", "it’s a café", MOJIBAKE),
        ("РџСЂРёРІРµС‚ РјРёСЂ", "Привет мир", MOJIBAKE),
        ("he said \x93yes\x94", "he said “yes”", MOJIBAKE),
        ("re\x00d \x1b[31mred\x1b[0m", "red red", CONTROLS),
        ("in\u200bvisible\u00ad\ufeff", "invisible", INVISIBLE),
        ("a\u200db", "ab", INVISIBLE),
        ("1\u00a0000", "1 000", SPACES),
        ("cafe\u0301", "café", UNICODE_FORM),
    ],
)
def test_what_does_not_belong_in_a_text_is_put_right_and_named(
    broken: str, whole: str, repair: str
) -> None:
    assert repair_text(broken) == (whole, (repair,))


@pytest.mark.parametrize(
    "text",
    [
        "plain text, with tab\tand line\nend",
        "naïve café – “quoted” … 5 € £3 ½ m²",
        "Ça va à Paris, où l’été est déjà là.",
        "Größe, Übung, Straße",
        "Привет, как дела?",
        "日本語のテキストです。",
        "👨\u200d👩\u200d👧",
        "می\u200cخواهم",
    ],
)
def test_good_text_stays_as_it_is(text: str) -> None:
    assert repair_text(text) == (text, ())


def test_line_ends_become_line_feeds_without_a_repair() -> None:
    assert repair_text("a\r\nb\rc\u2028d") == ("a\nb\nc\nd", ())


@given(st.text(max_size=200))
def test_a_repaired_text_needs_no_further_repair_of_its_characters(text: str) -> None:
    once, _ = repair_text(text)
    _, repairs = repair_text(once)
    assert not set(repairs) & {CONTROLS, INVISIBLE, SPACES, UNICODE_FORM}
