"""Scores of written answers, on examples that can be counted by hand."""

from __future__ import annotations

import pytest

from llamafarm.evaluation.text_metrics import exact_match, rouge_l, token_f1, words


def test_words_are_lower_case_runs_of_letters_and_digits() -> None:
    assert words("Don't PANIC: 3 cafés_now") == ["don", "t", "panic", "3", "cafés", "now"]


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [("Paris.", "paris", True), ("The  Paris", "Paris", False), ("", "", True)],
)
def test_exact_match_ignores_case_punctuation_and_spacing(
    answer: str, reference: str, same: bool
) -> None:
    assert exact_match(answer, reference) is same


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("police killed the gunman", "police kill the gunman", 0.75),
        ("the gunman kill police", "police kill the gunman", 0.5),
        ("a b c", "a b c", 1.0),
        ("a", "b", 0.0),
        ("", "b", 0.0),
        ("", "", 1.0),
    ],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(
    answer: str, reference: str, expected: float
) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("sat cat", "cat sat", 1.0),
        ("cat cat dog", "cat", 0.5),
        ("cat", "the", 0.0),
        ("the", "an", 1.0),
        ("don't", "dont", 1.0),
    ],
)
def test_token_f1_is_that_of_squads_script(answer: str, reference: str, expected: float) -> None:
    """Articles and ASCII punctuation do not count, nor does the order; a word counts as often as
    both have it.
    """
    assert token_f1(answer, reference) == pytest.approx(expected)
