from __future__ import annotations

import pytest

from llamafarm.data.quality.excerpt import MAX_CHARACTERS, excerpt


def test_a_short_text_is_shown_whole_on_one_line() -> None:
    assert excerpt("What\n is\t this?\n") == "What is this?"


def test_a_long_text_is_cut_around_what_matters() -> None:
    text = "word " * 100 + "HERE" + " word" * 100
    shown = excerpt(text, text.index("HERE"))
    assert (
        shown == "…word word word word HERE word word word word word word word word word word wor…"
    )
    assert len(shown) == MAX_CHARACTERS


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_personal_data_is_hidden_wherever_the_excerpt_begins(at: int) -> None:
    shown = excerpt("Call Ann at +49 30 901820 or write to ann.lee@example.com today", at)
    assert "901820" not in shown and "lee" not in shown and "example" not in shown


def test_personal_data_at_the_edge_of_the_window_is_hidden() -> None:
    for pad in range(300, 420):
        shown = excerpt("x" * 3 + " y" * (pad // 2) + " john.smith@example.com " + "z " * 300, 0)
        assert "smith" not in shown


@pytest.mark.parametrize("secret", ["john.smith@example.com", "+49 30 90182018"])
def test_white_space_that_is_not_shown_brings_no_half_of_a_secret_into_view(secret: str) -> None:
    for gap in range(370, 400):
        after = excerpt(f"Here:{' ' * gap}{secret} is it {'z ' * 300}", 0)
        before = excerpt(f"{'z ' * 300} it is {secret}{' ' * gap}Here", 607 + len(secret) + gap)
        assert after.rstrip("…").strip() == "Here:", gap
        assert before == "…Here", gap


def test_a_private_key_is_never_shown() -> None:
    body = "\n".join(["MIIEpAIBAAKCAQEAx7f8s9a0b1c2d3e4f5g6h7i8j9k0"] * 30)
    text = "-----BEGIN " + f"PRIVATE KEY-----\n{body}\nc2VjcmV0"
    assert excerpt(f"Here: {text}", 6) == "Here: -----BEGIN *** PRIVATE KEY-----…"
    assert "pAIBAAKC" not in excerpt(text, 900)


def test_what_cannot_be_seen_is_written_as_an_escape() -> None:
    shown = excerpt("a\x1b[31mb\u200bc\u202ed\ud800e\U000e0041f")
    assert shown == r"a\x1b[31mb\u200bc\u202ed\ud800e\U000e0041f"
    assert shown.isprintable()


@pytest.mark.parametrize("text", ["", " ", "\x00" * 500, "é" * 500, "👨‍👩‍👧" * 100])
def test_no_excerpt_is_longer_than_promised(text: str) -> None:
    assert len(excerpt(text)) <= MAX_CHARACTERS
    assert len(excerpt(text, len(text) // 2)) <= MAX_CHARACTERS
