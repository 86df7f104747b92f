from __future__ import annotations

from pathlib import Path

from llamafarm.data.documents.duplicates import ExactDuplicates, NearDuplicates
from llamafarm.data.documents.found import FoundRow, asked_and_answered

SENTENCE = "the quick brown fox jumps over the lazy dog and runs into the deep dark wood at night"
WORDS = SENTENCE.split()


def text(words: list[str]) -> FoundRow:
    return FoundRow("text", 1, text=" ".join(words))


def dropped(folder: Path, rows: list[FoundRow]) -> list[tuple[int, int]]:
    with NearDuplicates(folder) as near:
        for row in rows:
            near.add(row)
        return [(row, earlier) for row, earlier, _ in near.dropped()]


def test_rows_are_equal_whatever_their_case_white_space_and_unicode_form() -> None:
    exact = ExactDuplicates()
    rows = ["Caf\u00e9 at night", "cafe\u0301  AT\nnight", "Cafe at night"]
    assert [exact.first_equal(text([row]), i) for i, row in enumerate(rows)] == [0, 0, 2]


def test_a_question_and_its_answer_are_told_apart() -> None:
    exact = ExactDuplicates()
    assert exact.first_equal(asked_and_answered("row", 1, "a b", "c"), 0) == 0
    assert exact.first_equal(asked_and_answered("row", 1, "a", "b c"), 1) == 1


def test_of_rows_that_nearly_agree_the_first_stays(tmp_path: Path) -> None:
    rows = [text(WORDS), text(["other", "words"] * 8), text([*WORDS, "again"]), text(WORDS[1:])]
    assert dropped(tmp_path, rows) == [(2, 0), (3, 0)]


def test_a_row_that_resembles_a_dropped_one_only_stays(tmp_path: Path) -> None:
    """Each differs from the one before in its first words, so that the ends of the chain have
    little in common.
    """
    rows = [text([*WORDS[2 * i :], *(f"new{n}" for n in range(2 * i))]) for i in range(4)]
    found = dropped(tmp_path, rows)
    assert (1, 0) in found
    gone = {row for row, _ in found}
    assert 0 not in gone
    assert all(earlier not in gone for _, earlier in found)


def test_of_a_large_group_one_row_stays(tmp_path: Path) -> None:
    rows = [text([*WORDS, *WORDS[::-1], f"variant{n}"]) for n in range(300)]
    assert len(dropped(tmp_path, rows)) == 299
