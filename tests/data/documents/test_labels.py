from __future__ import annotations

import pytest

from llamafarm.data.documents.labels import (
    question_columns,
    read_label,
    read_speaker_heading,
    split_pairs,
)


@pytest.mark.parametrize(
    ("line", "kind", "rest"),
    [
        ("Q: What is it?", "question", "What is it?"),
        ("  Q:What is it?", "question", "What is it?"),
        ("Question: What?", "question", "What?"),
        ("Question 12: What?", "question", "What?"),
        ("Q1. What?", "question", "What?"),
        ("Q2) What?", "question", "What?"),
        ("Q. What?", "question", "What?"),
        ("**Q:** What?", "question", "What?"),
        ("**Q: What?**", "question", "What?"),
        ("**Q**: What?", "question", "What?"),
        ("__Question 3:__ What?", "question", "What?"),
        ("- **Q:** What?", "question", "What?"),
        ("3. Q: What?", "question", "What?"),
        ("> Q: What?", "question", "What?"),
        ("问：什么？", "question", "什么？"),
        ("Frage: Was?", "question", "Was?"),
        ("A: This.", "answer", "This."),
        ("**Answer:** This.", "answer", "This."),
        ("Réponse: oui", "answer", "oui"),
        ("Q:", "question", ""),
        ("User: hello", "user", "hello"),
        ("[10:02] Customer: hello", "user", "hello"),
        ("10:02:11 PM - Agent: hello", "assistant", "hello"),
        ("AI: hello", "assistant", "hello"),
        ("**Doctor:** hello", "assistant", "hello"),
        ("Patient (2): hello", "user", "hello"),
        ("System: Be brief.", "system", "Be brief."),
    ],
)
def test_a_label_is_read_with_what_follows_it(line: str, kind: str, rest: str) -> None:
    label = read_label(line)
    assert label is not None
    assert (label.kind, label.rest) == (kind, rest)


@pytest.mark.parametrize(
    "line",
    [
        "Quality: good",
        "Note: this",
        "http://example.org",
        "Questions are fun",
        "Dear user: hello",
        "a) first",
        "answer. That was it",
        "The answer: 42",
        "10:02 tomorrow",
        "",
        ":",
    ],
)
def test_other_lines_have_no_label(line: str) -> None:
    assert read_label(line) is None


def test_a_letter_with_a_full_stop_may_be_an_item_of_a_list() -> None:
    label = read_label("A. first")
    assert label is not None
    assert not label.by_colon


@pytest.mark.parametrize("unit", ["Q: ", " ", "*", ".", "> ", "1. ", "Q1"])
def test_a_line_of_five_megabytes_is_read_like_any_other(unit: str) -> None:
    line = unit * (5_000_000 // len(unit))
    read_label(line)
    assert len("".join(split_pairs(line))) <= len(line)


def test_a_line_is_split_before_the_answer_that_follows_a_question() -> None:
    assert split_pairs("Q: One? A: Two. Q: Three? **A:** Four: 4. A B: C") == [
        "Q: One?",
        "A: Two.",
        "Q: Three?",
        "**A:** Four: 4. A B: C",
    ]
    assert split_pairs("Q: What is plan A: the first?") == ["Q: What is plan A: the first?"]


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("User", "user"),
        ("**Assistant:**", "assistant"),
        ("Response:", "answer"),
        ("Instruction:", "question"),
        ("Question", None),
        ("Users", None),
        ("A:", None),
    ],
)
def test_a_heading_may_be_nothing_but_a_label(heading: str, kind: str | None) -> None:
    assert read_speaker_heading(heading) == kind


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (["Question", "Answer"], (0, 1)),
        (["id", "ANSWER ", "**Question**"], (2, 1)),
        (["Patient question", "Doctor's answers", "date"], (0, 1)),
        (["Q", "A"], (0, 1)),
        (["name", "answer"], None),
        (["question answer"], None),
        ([], None),
    ],
)
def test_columns_of_questions_and_answers_are_found_by_name(
    header: list[str], columns: tuple[int, int] | None
) -> None:
    assert question_columns(header) == columns
