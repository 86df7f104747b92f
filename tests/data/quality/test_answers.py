from __future__ import annotations

import pytest

from llamafarm.data.quality.answers import is_echo
from llamafarm.data.quality.endings import Endings
from llamafarm.data.quality.frequent import FrequentAnswers
from llamafarm.data.quality.phrases import boilerplate_in, is_refusal
from llamafarm.data.quality.row import row_of
from llamafarm.data.rows import Conversation, RowRef
from tests.data.quality.conversations import ENGLISH, finding_of, plain_rows, qa, report_of


def test_one_answer_to_many_prompts_is_found() -> None:
    rows = [*plain_rows(60), *(qa(f"Why {i}?", "I do not know.", 61 + i) for i in range(30))]
    finding = finding_of(report_of(rows), "same_answer")
    assert finding is not None and finding.rows == 30
    assert finding.text.startswith("30 rows (33%) with one and the same answer")
    assert finding.examples[0].excerpt == "I do not know."


def test_equal_rows_are_duplicates_and_no_answer_to_many_prompts() -> None:
    rows = [*plain_rows(60), *(qa("Why?", "I do not know.", 61 + i) for i in range(30))]
    assert finding_of(report_of(rows), "same_answer") is None


def test_labels_may_be_shared_by_many_rows() -> None:
    labels = ("positive", "negative", "neutral")
    rows = [qa(f"{ENGLISH[i % 7]} {i}", labels[i % 3], i) for i in range(90)]
    assert finding_of(report_of(rows), "same_answer") is None


def test_one_answer_to_everything_is_found_even_if_it_looks_like_a_label() -> None:
    report = report_of([qa(f"{ENGLISH[i % 7]} {i}", "yes", i) for i in range(5)])
    finding = finding_of(report, "same_answer")
    assert finding is not None and finding.text == "all 5 answers are the same"


def test_frequent_answers_are_counted_in_fixed_memory() -> None:
    frequent = FrequentAnswers()
    for i in range(20_000):
        answer = "Ask a doctor." if i % 3 == 0 else f"Answer number {i}."
        frequent.add(RowRef("r", i), f"Question {i}?", answer)
    most = frequent.most_frequent()
    assert most is not None and most.text == "Ask a doctor." and most.varied
    assert 6667 - 20_000 // 512 <= most.rows <= 6667
    assert frequent.distinct() <= 1025 and frequent.forgot


def test_an_answer_that_repeats_the_prompt_is_found() -> None:
    question = "Which organ turns sugar into a form that the body can store?"
    report = report_of([qa(question, f"{question} The liver."), qa("Why?", "Because.", 2)])
    finding = finding_of(report, "repeated_prompt")
    assert finding is not None and finding.rows == 1


def test_a_short_prompt_at_the_start_of_an_answer_is_no_echo() -> None:
    assert is_echo("Photosynthesis", "Photosynthesis")
    assert not is_echo("Photosynthesis", "Photosynthesis turns light into sugar.")


def test_answers_of_one_character_are_found_unless_they_are_the_task() -> None:
    odd = [*plain_rows(30), qa("Why?", " . ", 31)]
    finding = finding_of(report_of(odd), "short_answer")
    assert finding is not None and finding.rows == 1
    choices = [qa(f"{ENGLISH[i % 7]} {i}", "ABCD"[i % 4], i) for i in range(40)]
    assert finding_of(report_of(choices), "short_answer") is None


def test_answers_cut_at_one_length_are_found() -> None:
    text = " ".join(ENGLISH)
    cut = [qa(f"Why {i}?", f"{i:02} {text}"[:200], 61 + i) for i in range(8)]
    finding = finding_of(report_of([*plain_rows(60), *cut]), "cut_answer")
    assert finding is not None and finding.rows == 8
    assert "8 answers of exactly 200 characters" in finding.text
    assert finding.level == "notice"


def test_answers_cut_near_the_longest_are_found() -> None:
    text = " ".join(ENGLISH * 2)
    cut = [qa(f"Why {i}?", f"{text[: 700 + 7 * i]}x", 61 + i) for i in range(15)]
    finding = finding_of(report_of([*plain_rows(60), *cut]), "cut_answer")
    assert finding is not None and finding.rows == 15
    assert [example.source.line for example in finding.examples] == list(range(75, 65, -1))


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize(
    ("secret", "half"),
    [
        ("elisabeth.hofer@clinic.example", "inic.example"),
        ("sk-proj-aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5bC7dE9fG1hJ3", "hJ3"),
    ],
)
def test_of_a_cut_answer_no_half_of_a_secret_is_shown(secret: str, half: str, near: bool) -> None:
    for after in range(90):
        endings = Endings()
        row = row_of(qa("Why?", "So."), "train")
        for _ in range(40):
            endings.see(row, "So it is.")
        for number in range(12):
            longer = "x" * (number if near else 0)
            endings.see(row, f"{'words ' * 40}{longer} {secret} {('and so on ' * 9)[:after]}x")
        (finding,) = endings.findings()
        for example in finding.examples:
            assert half not in example.excerpt
            assert "***" in example.excerpt or after > 35
            assert example.excerpt.endswith("x")


@pytest.mark.parametrize("end", [".", "", "!", "。"])
def test_answers_that_all_end_alike_are_not_cut(end: str) -> None:
    rows = [
        qa(f"Why {i}?", f"{'many words ' * (i % 9)}are needed here {i}{end}") for i in range(90)
    ]
    assert finding_of(report_of(rows), "cut_answer") is None


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I have no body.",
        "I’m an AI and cannot feel.",
        "I was trained by OpenAI.",
        "My knowledge cutoff is 2021.",
        "En tant que modèle de langage, je ne peux pas.",
        "Als KI-Sprachmodell habe ich keine Meinung.",
        "作为一个人工智能，我没有身体。",
        "Как языковая модель, я не могу.",
        "En español: como modelo de lenguaje, no puedo.",
    ],
)
def test_a_chatbot_that_names_itself_is_found(text: str) -> None:
    assert boilerplate_in(text) >= 0
    finding = finding_of(report_of([qa("Who are you?", text)]), "boilerplate")
    assert finding is not None and "remove_patterns" in finding.advice


@pytest.mark.parametrize(
    "text",
    [
        "A language model predicts the next word.",
        "AI is a field of computer science; GPT-4 was developed by OpenAI.",
        "She works as an AI researcher and uses GPT as a language model for text.",
        "The model was as an aid to memory.",
        "Er ist ein Modell für andere.",
    ],
)
def test_texts_about_models_are_left_alone(text: str) -> None:
    assert boilerplate_in(text) == -1


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I am sorry but I do not know.",
        "I cannot provide medical advice.",
        "Unfortunately, I can’t answer this.",
        "Es tut mir leid, aber das geht nicht.",
        "Je suis désolé, mais je ne peux pas.",
        "Lo siento, pero no puedo.",
        "抱歉，我无法回答。",
        "К сожалению, я не могу помочь.",
    ],
)
def test_refusals_are_found(answer: str) -> None:
    assert is_refusal(answer)
    assert finding_of(report_of([qa("How?", answer)]), "refusal") is not None


@pytest.mark.parametrize(
    "answer", ["I cannot recommend this film enough.", "Sorry is a hard word.", "I can help you."]
)
def test_other_answers_are_no_refusals(answer: str) -> None:
    assert not is_refusal(answer)


def test_plain_text_is_searched_for_boilerplate_but_has_no_answer() -> None:
    report = report_of([Conversation(RowRef("r", 1), text="As an AI, I wrote this whole story.")])
    assert [finding.kind for finding in report.findings] == ["boilerplate"]
