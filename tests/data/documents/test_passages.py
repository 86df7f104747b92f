from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data.documents.blocks import Line
from llamafarm.data.documents.gather import Gathered, Passages
from llamafarm.data.documents.passages import Part, cut, paragraph_text, sentences

WRAPPED = [
    "This is a line that was wrapped at a width of about sixty",
    "characters, and it goes on here with nearly the same width,",
    "so that it ends here.",
]


def numbered(texts: list[str]) -> list[Line]:
    return [Line(text, number, gap=0) for number, text in enumerate(texts, start=1)]


@pytest.mark.parametrize("start", ["", "- ", "3. "])
def test_lines_that_were_wrapped_to_a_width_are_joined(start: str) -> None:
    lines = [start + WRAPPED[0], *WRAPPED[1:]]
    assert paragraph_text(numbered(lines)) == " ".join(lines)


@pytest.mark.parametrize(
    "texts",
    [
        ["Roses are red,", "violets are blue"],
        ["- " + WRAPPED[0], "- " + WRAPPED[1]],
        [WRAPPED[0] + "  ", WRAPPED[1]],
        [WRAPPED[0], "Street 1", WRAPPED[1]],
        ["| a | b | and so on, for about the width of a line |", "| c | d |"],
    ],
)
def test_lines_that_stand_for_themselves_stay(texts: list[str]) -> None:
    assert paragraph_text(numbered(texts)).split("\n") == [text.rstrip() for text in texts]


def test_chinese_lines_are_joined_without_a_space() -> None:
    lines = ["这是一个很长的句子" * 5, "它在这里继续" * 7, "完。"]
    assert paragraph_text(numbered(lines)) == "".join(lines)


def test_pieces_of_one_line_are_put_together_again() -> None:
    pieces = [Line("one two ", 1, goes_on=True), Line("three", 1), Line("four", 2)]
    assert paragraph_text(pieces) == "one two three\nfour"


def test_a_text_is_cut_behind_sentences_and_not_behind_abbreviations() -> None:
    text = 'Dr. Smith came at 5 p.m. today. He said: "Stop." Was it J. R. Jones? No. 是的。好。'
    assert [sentence.strip() for sentence in sentences(text)] == [
        "Dr. Smith came at 5 p.m. today.",
        'He said: "Stop."',
        "Was it J. R. Jones?",
        "No. 是的。",
        "好。",
    ]


@given(st.text(alphabet='ab .!?\n"”D。', max_size=300))
def test_cut_sentences_make_the_same_text_again(text: str) -> None:
    assert "".join(sentences(text)) == text


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(40, 200))
def test_pieces_fit_and_end_where_sentences_do(words: list[int], limit: int) -> None:
    text = " ".join("Word" + " word" * (count % 6) + "." for count in words)
    pieces = cut(Part(text, 1), limit)
    assert " ".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= limit and piece.text.endswith(".") for piece in pieces)


def test_code_is_never_cut() -> None:
    code = Part("x. Y. " * 100, 1, whole=True)
    assert cut(code, 10) == [code]


def test_a_sentence_longer_than_the_limit_stays_whole() -> None:
    long = "Word " * 100 + "end."
    pieces = cut(Part(f"Short one. {long} Last one.", 1), 50)
    assert [piece.text for piece in pieces] == ["Short one.", long, "Last one."]


@pytest.mark.parametrize("unit", [".", " ", ". ", ")", '."', "\n", "word "])
def test_a_megabyte_of_anything_is_cut(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    assert "".join(sentences(text)) == text


def test_short_paragraphs_are_joined_up_to_the_limit() -> None:
    passages = Passages(100)
    for number in range(1, 11):
        passages.add(Line(f"Paragraph {number:02} has forty characters in it", number, gap=1))
    found = passages.finish()
    assert [part.number for part in found] == [1, 3, 5, 7, 9]
    assert all(part.text.count("\n\n") == 1 for part in found)


def test_a_paragraph_without_end_is_given_out_while_it_is_read() -> None:
    passages = Passages(200)
    given_out = 0
    for number in range(1, 2_001):
        passages.add(Line(f"Line {number} of a paragraph that never ends.", number))
        given_out += sum(part.text.count("Line") for part in passages.take())
    assert given_out > 1_900
    assert given_out + sum(part.text.count("Line") for part in passages.finish()) == 2_000


def test_a_line_without_end_is_given_out_sentence_by_sentence() -> None:
    passages = Passages(200)
    sentence = "This sentence stands on a line that never ends. "
    for _ in range(100):
        passages.add(Line(sentence * 20, 1, goes_on=True))
    found = passages.finish()
    assert sum(part.text.count("This") for part in found) == 2_000
    assert all(part.text.startswith("This") and part.text.endswith(".") for part in found)


def test_of_a_text_that_no_row_can_hold_the_rest_is_not_kept() -> None:
    gathered = Gathered(1_000)
    for number in range(10_000):
        gathered.add(Line("x" * 100, number))
    assert 1_000 < len(gathered.text()) < 1_300
