"""The demo's data: written for this project, education only, and no row twice."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "demos" / "datasets" / "medical" / "medical_qa.jsonl"
WORD = re.compile(r"[a-z0-9']+")
UNITS = r"mg|mcg|µg|g|ml|iu|units?|tablets?|pills?|capsules?|drops?|puffs?|doses?|teaspoons?"
DOSE = re.compile(rf"\d\s*(?:{UNITS})\b", re.IGNORECASE)
DIAGNOSIS = re.compile(
    r"\byou (?:probably |likely |certainly )?(?:have|are suffering from) an? \w+itis", re.I
)
AMERICAN = re.compile(
    r"\b(?:colors?|discolored|fiber|anemi[ac]|pediatric\w*|diarrhea|edema|estrogen|centers?|behaviors?"
    r"|tumors?|gray|apnea|hemorrh\w+|celiac|travelers?|diapers?|yogurt|recogniz\w+|organiz\w+|judgment)\b",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The sets of three neighbouring words."""
    words = WORD.findall(text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def likeness(one: str, other: str) -> float:
    """Jaccard index of the 3-shingles of two texts."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def whole(row: dict[str, str]) -> str:
    return f"{row['question']} {row['answer']}"


def test_readme_gives_the_number_of_rows_and_says_what_they_are_not(
    rows: list[dict[str, str]],
) -> None:
    text = (FILE.parents[2] / "README.md").read_text("utf-8")
    held_out = round(len(rows) * 0.1)
    assert f"{len(rows)} questions and answers" in text
    assert f"{len(rows) - held_out} rows to train and {held_out} to evaluate" in text
    assert "not medical advice" in text


def test_file_is_utf8_with_unix_lines_and_a_final_newline() -> None:
    content = FILE.read_bytes()
    assert b"\r" not in content
    assert content.endswith(b"}\n")
    assert not content.startswith(b"\xef\xbb\xbf")
    assert b"\n\n" not in content


def test_there_are_at_least_320_rows(rows: list[dict[str, str]]) -> None:
    assert len(rows) >= 320


def test_every_row_is_a_question_and_an_answer(rows: list[dict[str, str]]) -> None:
    for number, row in enumerate(rows, 1):
        assert list(row) == ["question", "answer"], f"line {number}"
        for text in row.values():
            assert text, f"line {number}"
            assert text == text.strip(), f"line {number}"
            assert "  " not in text, f"line {number}"


def test_answers_are_two_to_four_sentences_of_35_to_75_words(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert 35 <= len(row["answer"].split()) <= 75, row["question"]
        assert 2 <= len(re.findall(r"[.!?](?:\s|$)", row["answer"])) <= 4, row["question"]
        assert row["answer"].endswith("."), row["question"]


def test_questions_are_short(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert 3 <= len(row["question"].split()) <= 20, row["question"]
        assert row["question"][-1] in "?.", row["question"]


def test_no_row_names_a_dose_or_states_a_diagnosis(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert not DOSE.search(whole(row)), row["question"]
        assert not DIAGNOSIS.search(row["answer"]), row["question"]


@pytest.mark.parametrize("text", ["take 200 mg", "5ml of syrup", "2 tablets a day", "10 Drops"])
def test_the_dose_check_sees_doses(text: str) -> None:
    assert DOSE.search(text)


def test_most_answers_say_when_to_ask_somebody(rows: list[dict[str, str]]) -> None:
    helper = re.compile(
        r"doctor|nurse|midwife|dentist|pharmac|clinic|emergency|specialist|professional|physio|dietitian"
        r"|appointment|checked|examined|seen|assessed|advice|care|help|ask",
        re.IGNORECASE,
    )
    pointing = sum(bool(helper.search(row["answer"])) for row in rows)
    assert pointing / len(rows) > 2 / 3


def test_spelling_is_british_throughout(rows: list[dict[str, str]]) -> None:
    found = {word for row in rows for word in AMERICAN.findall(whole(row))}
    assert found == set()


def test_no_question_and_no_answer_comes_twice(rows: list[dict[str, str]]) -> None:
    for key in ("question", "answer"):
        texts = [" ".join(WORD.findall(row[key].lower())) for row in rows]
        assert len(set(texts)) == len(texts), key


def test_no_two_rows_are_near_duplicates(rows: list[dict[str, str]]) -> None:
    prints = [shingles(whole(row)) for row in rows]
    for (i, a), (j, b) in itertools.combinations(enumerate(prints), 2):
        assert len(a & b) < 0.6 * len(a | b), f"lines {i + 1} and {j + 1}"


def test_rows_are_not_one_template_with_a_word_exchanged(rows: list[dict[str, str]]) -> None:
    """No two answers share a third of their 3-shingles, and few begin with the same words."""
    prints = [shingles(row["answer"]) for row in rows]
    for (i, a), (j, b) in itertools.combinations(enumerate(prints), 2):
        assert len(a & b) < 0.33 * len(a | b), f"lines {i + 1} and {j + 1}"
    openings = [tuple(WORD.findall(row["answer"].lower())[:4]) for row in rows]
    assert max(openings.count(opening) for opening in set(openings)) <= 3


def test_likeness_measure_tells_a_template_from_two_texts() -> None:
    text = "Rest well, drink enough and see a doctor if the pain stays for a week or gets worse."
    assert likeness(text, text.replace("pain", "cough")) > 0.6
    assert likeness(text, "Wash your hands with soap before every meal.") == 0.0
