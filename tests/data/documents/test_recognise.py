from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data.documents.recognise import (
    BARE_HEADING,
    DIVIDED,
    DIVIDED_DIALOGUE,
    NO_EXCHANGE,
    OUTSIDE_TURN,
    UNANSWERED,
)

from .made_rows import Read, read_markdown, read_text


def turns(read: Read) -> list[list[tuple[str, str]]]:
    return [[(m.role, m.content) for m in row.messages] for row in read.rows]


def test_questions_and_answers_are_pairs_of_several_paragraphs() -> None:
    read = read_text(
        "Q: What is a fever?\nAnd is it dangerous?\nA: A high temperature.\n\nRarely.\n\n"
        "Question 2: What helps?\n\nAnswer 2: Rest.\n"
    )
    assert read.pairs() == [
        ("What is a fever?\nAnd is it dangerous?", "A high temperature.\n\nRarely."),
        ("What helps?", "Rest."),
    ]
    assert [(row.kind, row.number) for row in read.rows] == [
        ("question with answer", 1),
        ("question with answer", 7),
    ]


def test_bold_and_numbered_markdown_pairs_lose_their_marks_and_keep_the_rest() -> None:
    read = read_markdown(
        "**Q1: What *is* it?**\n\n**A1:** It is **bold**.\n\n2. **Q:** Two?\n**A:** 2"
    )
    assert read.pairs() == [("What *is* it?", "It is **bold**."), ("Two?", "2")]


def test_several_pairs_on_one_line_are_told_apart() -> None:
    read = read_text("Q: One? A: Two. Q: Three? A: Four.\n")
    assert read.pairs() == [("One?", "Two."), ("Three?", "Four.")]


def test_an_answer_needs_no_label_after_a_question_mark() -> None:
    read = read_text("Q: What is it?\n\nIt is this.\n\nQ: And that?\nToo.\n")
    assert read.pairs() == [("What is it?", "It is this."), ("And that?", "Too.")]


def test_a_question_without_an_answer_is_dropped_by_name() -> None:
    read = read_text("Q: Nobody knows\n\nQ: And this?\nA: Yes.\n\nQ: The last one?\n")
    assert read.pairs() == [("And this?", "Yes.")]
    assert read.dropped() == {UNANSWERED: ["x:1", "x:6"]}


def test_options_belong_to_the_question() -> None:
    read = read_text("Q: Which colour?\nA: red\nB: blue\nC: green\nAnswer: B\n")
    assert read.pairs() == [("Which colour?\nA: red\nB: blue\nC: green", "B")]


def test_an_answer_that_is_a_list_stays_an_answer() -> None:
    read = read_text("Q: What helps?\nA: Three things\n- rest\n- tea\n\nB. is another matter\n")
    assert read.pairs() == [
        ("What helps?", "Three things\n- rest\n- tea\n\nB. is another matter"),
    ]


def test_an_answer_label_without_a_question_is_text() -> None:
    assert read_text("A: starts here.\n").texts() == ["A: starts here."]


def test_turns_of_two_speakers_are_a_dialogue() -> None:
    read = read_text(
        "System: Be brief.\nUser: Hi\nAssistant: Hello\nUser: Bye\nAssistant: See you\n"
    )
    assert turns(read) == [
        [
            ("system", "Be brief."),
            ("user", "Hi"),
            ("assistant", "Hello"),
            ("user", "Bye"),
            ("assistant", "See you"),
        ]
    ]


@pytest.mark.parametrize(
    "speakers", [("Human", "AI"), ("Customer", "Agent"), ("Patient", "Doctor")]
)
def test_speakers_have_many_names(speakers: tuple[str, str]) -> None:
    asks, answers = speakers
    read = read_text(f"**{asks}:** It hurts.\nA lot.\n**{answers}:** Since when?\n")
    assert turns(read) == [[("user", "It hurts.\nA lot."), ("assistant", "Since when?")]]


def test_a_wider_gap_than_between_turns_begins_a_new_dialogue() -> None:
    close = read_text(
        "User: a\nAssistant: b\n\nmore of b\nUser: c\nAssistant: d\n\nUser: e\nAI: f\n"
    )
    assert [len(row.messages) for row in close.rows] == [4, 2]
    wide = read_text("User: a\n\nAssistant: b\n\nUser: c\n\nAssistant: d\n\n\nUser: e\n\nAI: f\n")
    assert [len(row.messages) for row in wide.rows] == [4, 2]


def test_turns_outside_of_question_and_answer_are_left_out_and_counted() -> None:
    read = read_text("Agent: Welcome!\nCustomer: Help\nAgent: Sure\nCustomer: Thanks\n")
    assert turns(read) == [[("user", "Help"), ("assistant", "Sure")]]
    assert read.changed() == {OUTSIDE_TURN: 1}


def test_a_dialogue_without_an_exchange_is_dropped_by_name() -> None:
    read = read_text("Assistant: Yes\nUser:\nAssistant: No\n")
    assert read.rows == []
    assert read.dropped() == {NO_EXCHANGE: ["x:1"]}


def test_one_speaker_alone_is_no_dialogue() -> None:
    text = "Agent: 007\n\nUser: admin\nPassword: secret\n\nThat is all."
    assert read_text(text).texts() == [text]


def test_a_long_dialogue_is_divided_before_a_question() -> None:
    said = "".join(f"User: question {n}\nAssistant: {'answer ' * 20}\n" for n in range(100))
    read = read_text(said, most=1_000)
    assert len(read.rows) > 10
    assert all(row.messages[0].role == "user" for row in read.rows)
    assert all(sum(len(m.content) for m in row.messages) <= 1_000 for row in read.rows)
    assert sum(len(row.messages) for row in read.rows) == 200
    assert read.changed()[DIVIDED_DIALOGUE] > 0


def test_transcripts_with_speakers_as_headings_are_dialogues() -> None:
    read = read_markdown(
        "### User\nHi\n\n### Assistant\nHello\n\nthere\n\n### User\nBye\n\n### AI\nBye\n"
    )
    assert turns(read) == [
        [("user", "Hi"), ("assistant", "Hello\n\nthere"), ("user", "Bye"), ("assistant", "Bye")]
    ]


def test_a_section_that_is_called_like_a_speaker_is_a_section() -> None:
    read = read_markdown("# Roles\n\n## Agent\n\nRuns on the host.\n\n## Server\n\nCollects.\n")
    assert read.pairs() == [
        ("Roles > Agent", "Runs on the host."),
        ("Roles > Server", "Collects."),
    ]


def test_instruction_and_response_headings_are_a_pair() -> None:
    read = read_markdown("### Instruction:\nAdd them\n\n### Input:\n1 2\n\n### Response:\n3\n")
    assert read.pairs() == [("Add them\n\n1 2", "3")]


def test_a_section_is_a_row_under_the_path_of_its_headings() -> None:
    read = read_markdown(
        "# Guide\n\nIntro.\n\n## Install\n\n### Linux\n\nUse apt.\n\n# Other\n\nEnd.\n"
    )
    assert read.pairs() == [
        ("Guide", "Intro."),
        ("Guide > Install > Linux", "Use apt."),
        ("Other", "End."),
    ]
    assert [row.number for row in read.rows] == [1, 7, 11]


def test_a_heading_without_text_is_named() -> None:
    read = read_markdown("# One\n\n## Two\n\n## Three\n\nText.\n\n# Four\n")
    assert read.pairs() == [("One > Three", "Text.")]
    assert read.dropped() == {BARE_HEADING: ["x:3", "x:9"]}


def test_a_heading_that_asks_stands_for_itself() -> None:
    read = read_markdown("# FAQ\n\n## How do I begin?\n\nAt the start.\n")
    assert read.pairs() == [("How do I begin?", "At the start.")]


def test_a_question_label_in_a_heading_takes_the_section_as_its_answer() -> None:
    read = read_markdown(
        "# FAQ\n\n## Q: Why?\n\nBecause.\n\n### Detail\n\nMore.\n\n## Other\n\nText.\n"
    )
    assert read.pairs() == [("Why?", "Because.\n\n### Detail\n\nMore."), ("FAQ > Other", "Text.")]


def test_a_long_section_is_divided_between_paragraphs_and_counted() -> None:
    paragraphs = [f"Paragraph {n}: " + "some words of it. " * 40 for n in range(12)]
    read = read_markdown("# Long\n\n" + "\n\n".join(paragraphs))
    titles, texts = zip(*read.pairs(), strict=True)
    assert titles == ("Long", "Long (part 2)", "Long (part 3)")
    assert "\n\n".join(texts) == "\n\n".join(p.strip() for p in paragraphs)
    assert read.changed() == {DIVIDED: 2}


def test_tables_with_questions_are_pairs_and_others_are_text() -> None:
    read = read_markdown(
        "## Table\n\n| # | Question | Answer |\n|---|:--|--:|\n| 1 | Who? | Me \\| you |\n"
        "| 2 | Where? | |\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    assert read.pairs() == [
        ("Who?", "Me | you"),
        ("Table", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
    ]
    assert read.rows[0].kind == "table row"
    assert read.dropped() == {UNANSWERED: ["x:6"]}


def test_a_rule_ends_an_answer() -> None:
    read = read_markdown("Q: One?\nA: Two.\n\n---\n\nNot a part of it.\n")
    assert read.pairs() == [("One?", "Two.")]
    assert read.texts() == ["Not a part of it."]


def test_text_without_anything_becomes_passages() -> None:
    read = read_text("\n\n".join(f"Paragraph {n} is short. " * 20 for n in range(20)))
    assert {row.kind for row in read.rows} == {"text"}
    assert len(read.rows) == 5
    assert all(len(text) <= 2_000 for text in read.texts())


LINES = st.sampled_from(
    [
        *("", "", "Some words.", "- item", "    indented", "Is it so?", "---", "```", "x" * 70),
        *("Q: Why?", "Q: Because", "A: So.", "B: no", "Answer:", "**Q2: What?**", "Q: a? A: b."),
        *("User: hi", "Assistant: yes", "User:", "System: brief", "# Title", "### Q: How?"),
        *("## User", "## Assistant", "| Question | Answer |", "|---|---|", "| a | |", "====="),
    ]
)


@given(st.lists(LINES, max_size=30))
def test_whatever_stands_in_a_document_its_rows_are_whole(lines: list[str]) -> None:
    for read in (read_markdown, read_text):
        for row in read("\n".join(lines)).rows:
            assert bool(row.text.strip()) != bool(row.messages)
            spoken = [message for message in row.messages if message.role != "system"]
            assert all(message.content.strip() for message in row.messages)
            assert [m.role for m in spoken] == ["user", "assistant"] * (len(spoken) // 2)


@given(st.lists(LINES.filter(lambda line: not set(line) & set(":|#=") and line != "---")))
def test_no_line_of_a_text_is_lost(lines: list[str]) -> None:
    said = " ".join(read_text("\n".join(lines)).texts())
    for word in ("Some words.", "- item", "indented", "Is it so?", "x" * 70):
        assert said.count(word) == sum(word in line for line in lines)
