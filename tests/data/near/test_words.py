from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.near import words
from llamafarm.data.near.words import plain_form, word_hashes

TEXTS = st.lists(st.text(max_size=60), max_size=12)


def words_of(text: str) -> list[int]:
    return word_hashes([plain_form(text)])[0].tolist()


@given(st.lists(st.text("aäßБ7_ -.,\n\t😀", max_size=40), max_size=12))
@settings(deadline=None)
def test_words_are_the_runs_of_word_characters_of_each_text(texts: list[str]) -> None:
    hashes, counts = word_hashes(texts)
    expected = [re.findall(r"\w+", text) for text in texts]
    assert counts.tolist() == [len(found) for found in expected]
    flat = [word for found in expected for word in found]
    assert len(hashes) == len(flat)
    hash_of = dict(zip(flat, hashes.tolist(), strict=True))
    assert [hash_of[word] for word in flat] == hashes.tolist()
    assert len(set(hash_of.values())) == len(hash_of)


@given(TEXTS)
@settings(deadline=None)
def test_a_text_has_the_same_words_wherever_it_stands(texts: list[str]) -> None:
    hashes, counts = word_hashes(texts)
    alone = [word_hashes([text]) for text in texts]
    assert counts.tolist() == [int(count[0]) for _, count in alone]
    assert hashes.tolist() == [value for found, _ in alone for value in found.tolist()]


@given(TEXTS)
@settings(deadline=None)
def test_blocks_do_not_change_words(texts: list[str]) -> None:
    joined = [" ".join(texts) for _ in range(3)]
    whole = word_hashes(joined)
    with pytest.MonkeyPatch.context() as patch:
        longest = max((len(word) for text in joined for word in text.split(" ")), default=0)
        patch.setattr(words, "_BLOCK_CHARACTERS", longest + 2)
        cut = word_hashes(joined)
    assert [part.tolist() for part in whole] == [part.tolist() for part in cut]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("Ｆｕｌｌ width", "full WIDTH"),
        ("caf\u00e9", "cafe\u0301"),
        ("ｶﾀｶﾅ", "カタカナ"),
    ],
)
def test_case_and_unicode_form_do_not_count(one: str, other: str) -> None:
    assert words_of(one) == words_of(other)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("日本語です", 5),
        ("日本語abc日", 5),
        ("กินข้าว", 5),
        ("한국어 문장", 2),
        ("हिन्दी भाषा", 2),
        ("année 2024", 2),
        ("snake_case x2", 2),
        ("❤\ufe0f", 0),
        ("\u0301", 0),
        ("--- 😀 ...", 0),
        ("", 0),
    ],
)
def test_a_character_is_a_word_where_there_are_no_spaces(text: str, count: int) -> None:
    assert len(words_of(text)) == count


def test_letters_in_another_order_are_another_word() -> None:
    assert len({tuple(words_of(word)) for word in ("abc", "acb", "bac", "ab", "abcc", "a")}) == 6


def test_a_lone_surrogate_is_no_word_and_no_fault() -> None:
    assert len(words_of("one \ud800 two")) == 2


def test_a_text_longer_than_a_block_is_cut_at_spaces() -> None:
    text = "seven letters " * 10_000
    hashes, counts = word_hashes([text, "seven"])
    assert counts.tolist() == [20_000, 1]
    assert len(set(hashes.tolist())) == 2
    assert len(words_of("x" * 100_000)) == 4
