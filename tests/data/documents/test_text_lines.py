from __future__ import annotations

import pytest

from llamafarm.data.documents.blocks import Code, Divider, Heading, Line

from .made_rows import read_text


@pytest.mark.parametrize(
    ("text", "level", "title"),
    [
        ("Introduction\n============\nText", 1, "Introduction"),
        ("Details\n-------\nText", 2, "Details"),
        ("INTRODUCTION\n\nText", 1, "INTRODUCTION"),
        ("1.2 Details\n\nText", 2, "1.2 Details"),
        ("Chapter 3: The end\n\nText", 1, "Chapter 3: The end"),
        ("## Like Markdown\nText", 2, "Like Markdown"),
    ],
)
def test_headings_of_plain_texts_are_recognised(text: str, level: int, title: str) -> None:
    assert read_text(text).blocks[0] == Heading(level, title, 1)


@pytest.mark.parametrize(
    "text",
    [
        "1. Buy milk\n\n2. Buy bread",
        "WARNING: hot!\n\nText",
        "USA\n\nText",
        "AN OPENING LINE\nof a paragraph",
        "text\n# a comment",
        "It costs 3.50 Euro.\n\nText",
        "#!/bin/sh\nText",
    ],
)
def test_other_lines_are_no_headings(text: str) -> None:
    assert all(isinstance(block, Line) for block in read_text(text).blocks)


def test_fenced_code_is_taken_as_it_is() -> None:
    read = read_text("Text\n```\nQ: no question\n\nNO HEADING\n\n```\nmore\n")
    assert read.blocks[1] == Code("```\nQ: no question\n\nNO HEADING\n\n```", 2)


def test_rules_divide() -> None:
    kinds = [type(block) for block in read_text("One\n\n* * *\n\nTwo\n\n~~~~ ~~~~\n").blocks]
    assert kinds[:3] == [Line, Divider, Line]


def test_lines_know_the_blank_lines_before_them() -> None:
    gaps = [
        block.gap for block in read_text("a\nb\n\nc\n\n\nd\n").blocks if isinstance(block, Line)
    ]
    assert gaps == [1, 0, 1, 2]


@pytest.mark.parametrize("unit", ["Q: ", " "])
def test_a_line_of_five_megabytes_is_read(unit: str) -> None:
    read = read_text(unit * (5_000_000 // len(unit)) + "\n\nQ: One?\nA: Two.\n")
    assert read.pairs()[-1] == ("One?", "Two.")
