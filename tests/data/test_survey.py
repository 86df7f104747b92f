from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llamafarm.data.near.search import RowPairs
from llamafarm.data.rows import Conversation, Message, RowRef, Segment, ToolCall
from llamafarm.data.survey import (
    COMMON_PROMPT_ROWS,
    Survey,
    Surveyor,
    distinctive_prompts,
    facts_of,
    first_of_each,
    groups_of,
    near_duplicates,
)

NO_PAIRS = RowPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
LONG = "the patient should drink plenty of water and rest for at least two days after the fever"


def asked(question: str, answer: str, system: str = "") -> Conversation:
    turns = (Message("user", question), Message("assistant", answer))
    first = (Message("system", system),) if system else ()
    return Conversation(RowRef("r.jsonl", 1), (*first, *turns))


def survey_of(folder: Path, rows: list[Conversation], labels: list[str] | None = None) -> Survey:
    """The store stays open: these tests end before their process does."""
    surveyor = Surveyor(folder, grouped=labels is not None)
    for number, row in enumerate(rows):
        label = labels[number] if labels else ""
        facts = facts_of(row)
        surveyor.add(facts, source=0, position=number, line=number + 1, group=label)
    return surveyor.finish()


def groups(folder: Path, rows: list[Conversation], labels: list[str] | None = None) -> list[int]:
    survey = survey_of(folder, rows, labels)
    everything = np.arange(len(rows), dtype=np.int64)
    return groups_of(survey, everything, near_duplicates(survey)).tolist()


@pytest.mark.parametrize(
    ("other", "same_content", "same_normal"),
    [
        (asked("What  is\nit?", "A cow."), True, True),
        (asked("what is it", "a COW"), False, True),
        (asked("\uff37hat is it?", "A cow."), False, True),
        (asked("What is it?", "A cow.", system="Be brief."), False, False),
        (asked("What is it?", "A crow."), False, False),
        (asked("What is", "it? A cow."), False, False),
    ],
    ids=["spaces", "case and punctuation", "full width", "system", "other word", "moved words"],
)
def test_rows_are_the_same_as_far_as_their_words_are(
    other: Conversation, same_content: bool, same_normal: bool
) -> None:
    one, two = facts_of(asked("What is it?", "A cow.")), facts_of(other)
    assert (one.content == two.content) is same_content
    assert (one.normal == two.normal) is same_normal


def test_texts_without_words_differ_by_their_signs() -> None:
    assert facts_of(asked("?", "\U0001f404")).normal != facts_of(asked("?", "\U0001f411")).normal


def test_a_prompt_is_everything_before_the_last_answer() -> None:
    turns = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "How are you?"))
    one = Conversation(RowRef("r", 1), (*turns, Message("assistant", "Well.")))
    two = Conversation(RowRef("r", 2), (*turns, Message("assistant", "Bad.")))
    assert facts_of(one).prompt == facts_of(two).prompt != 0
    assert facts_of(one).prompt != facts_of(asked("How are you?", "Well.")).prompt


def test_texts_and_pieces_have_no_prompt() -> None:
    assert facts_of(Conversation(RowRef("r", 1), text="Once upon a time")).prompt == 0
    pieces = (Segment("Q", trained=False), Segment("A", trained=True))
    facts = facts_of(Conversation(RowRef("r", 1), segments=pieces))
    assert (facts.prompt, facts.texts) == (0, ("Q", "A"))


def test_a_call_of_a_tool_is_part_of_what_a_row_says() -> None:
    def calling(city: str) -> Conversation:
        call = ToolCall("weather", {"city": city})
        answer = Message("assistant", "", tool_calls=(call,))
        return Conversation(RowRef("r", 1), (Message("user", "Weather?"), answer))

    assert facts_of(calling("Rome")).normal != facts_of(calling("Oslo")).normal


def test_the_system_prompt_does_not_make_rows_alike() -> None:
    assert facts_of(asked("Why?", "So.", system=LONG)).texts == ("Why?", "So.")


def test_rows_that_differ_in_case_are_one_group(tmp_path: Path) -> None:
    rows = [asked("Why is it?", "So."), asked("Where is it?", "There."), asked("why IS it", "so")]
    assert groups(tmp_path, rows) == [0, 1, 0]


def test_near_duplicates_are_one_group(tmp_path: Path) -> None:
    rows = [asked("What to do?", LONG), asked("Is it so?", "Yes."), asked("What now?", LONG + "s")]
    assert groups(tmp_path, rows) == [0, 1, 0]


def test_one_question_with_two_answers_is_one_group(tmp_path: Path) -> None:
    rows = [
        asked("Who are you?", "Ada."),
        asked("Who is he?", "Bob."),
        asked("Who are you?", "Eve"),
    ]
    assert groups(tmp_path, rows) == [0, 1, 0]


def test_a_group_label_joins_rows_that_say_different_things(tmp_path: Path) -> None:
    rows = [asked(f"What is {n}?", f"It is the number {n}.") for n in range(4)]
    assert groups(tmp_path, rows, ["a", "b", "a", "c"]) == [0, 1, 0, 2]


def test_rows_without_a_question_are_not_one_group(tmp_path: Path) -> None:
    rows = [Conversation(RowRef("r", n), text=f"text number {n} of many") for n in range(5)]
    assert groups(tmp_path, rows) == [0, 1, 2, 3, 4]


def test_a_question_that_every_row_asks_does_not_tell_rows_apart(tmp_path: Path) -> None:
    count = COMMON_PROMPT_ROWS
    rows = [asked("Write a joke.", f"Joke {n}: {n} cows.") for n in range(count)]
    rows += [asked("Who?", "I."), asked("Who?", "You.")]
    survey = survey_of(tmp_path, rows)
    prompts = distinctive_prompts(survey)
    assert not prompts[:count].any()
    assert prompts[count] == prompts[count + 1] != 0


def test_pairs_with_rows_outside_are_left_out(tmp_path: Path) -> None:
    rows = [asked(f"What is {n}?", f"It is the number {n}.") for n in range(4)]
    survey = survey_of(tmp_path, rows)
    pairs = RowPairs(np.array([0, 1]), np.array([2, 3]), np.array([0.8, 0.9], np.float32))
    assert groups_of(survey, np.array([0, 1, 3]), pairs).tolist() == [0, 1, 1]


def test_the_first_of_each_key_is_found() -> None:
    assert first_of_each(np.array([7, 3, 7, 9, 3], np.uint64)).tolist() == [0, 1, 3]


def test_an_empty_survey_has_no_groups(tmp_path: Path) -> None:
    survey = survey_of(tmp_path, [])
    assert groups_of(survey, np.empty(0, np.int64), NO_PAIRS).tolist() == []
