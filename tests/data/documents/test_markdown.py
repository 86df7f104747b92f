from __future__ import annotations

import pytest

from llamafarm.data.documents.blocks import Code, Heading, Line, Table
from llamafarm.data.documents.markdown import COMMENT, FRONT_MATTER, MARKUP

from .made_rows import read_markdown

CODE = """```python
# this is a comment, and no heading
Q: this is no question
A: and this no answer

    indented\u200b\t
| a | b |
```"""


def test_code_survives_untouched() -> None:
    read = read_markdown(f"# Title\n\nRun this:\n\n{CODE}\n\nThen that.\n")
    assert read.pairs() == [("Title", f"Run this:\n\n{CODE}\n\nThen that.")]
    assert read.changed() == {}


def test_code_in_an_answer_survives_untouched() -> None:
    read = read_markdown(f"Q: How?\nA: So:\n\n{CODE}\n\nDone.\n\nQ: Else?\nA: No.\n")
    assert read.pairs() == [("How?", f"So:\n\n{CODE}\n\nDone."), ("Else?", "No.")]


def test_a_fence_ends_with_one_that_is_as_long() -> None:
    code = "````\n```\n# inside\n```\n````"
    assert read_markdown(f"{code}\n").blocks == [Code(code, 1)]
    assert read_markdown("~~~\n```\n# inside\n").blocks == [Code("~~~\n```\n# inside", 1)]


def test_indented_code_is_code_and_an_indented_list_is_none() -> None:
    read = read_markdown("Text:\n\n    # code\n\n    more\n\n- item\n\n    # of the item\n")
    assert read.blocks[1] == Code("    # code\n\n    more", 3)
    assert read.blocks[-1] == Line("    # of the item", 9, gap=1)


@pytest.mark.parametrize(
    ("text", "level", "title"),
    [
        ("# Title", 1, "Title"),
        ("### Title ###", 3, "Title"),
        ("  ## **Bold** title", 2, "Bold title"),
        ("## A [link](http://x.org) in it {#anchor}", 2, "A link in it"),
        ("Title\n=====", 1, "Title"),
        ("Title\n--", 2, "Title"),
        ("# C# and F#", 1, "C# and F#"),
    ],
)
def test_headings_are_what_markdown_says(text: str, level: int, title: str) -> None:
    assert read_markdown(f"{text}\n").blocks == [Heading(level, title, 1)]


@pytest.mark.parametrize("text", ["#hashtag", "    # code", "- item\n---", "####### seven"])
def test_other_lines_are_no_headings(text: str) -> None:
    assert not any(isinstance(block, Heading) for block in read_markdown(f"{text}\n").blocks)


def test_front_matter_comments_and_lines_of_pictures_are_removed_and_counted() -> None:
    read = read_markdown(
        "---\ntitle: x\n---\n<!-- one -->\n<!-- two\nlines --> kept\n"
        '[![build](http://b)](http://c) ![x](y)\n<div align="center">\n\nText.\n'
    )
    assert read.texts() == ["kept\n\nText."]
    assert read.changed() == {FRONT_MATTER: 1, COMMENT: 2, MARKUP: 2}


def test_what_only_looks_like_front_matter_stays() -> None:
    assert read_markdown("---\n\nText.\n\n---\n").texts() == ["Text."]
    assert read_markdown("---\nText that never ends it.\n").texts() == ["Text that never ends it."]


def test_a_comment_that_never_ends_is_text() -> None:
    assert read_markdown("<!-- open\nText.\n").texts() == ["<!-- open\nText."]


def test_a_table_needs_its_rule() -> None:
    read = read_markdown("| a | b |\n|---|---|\n| 1 | 2 |\n\n| no | rule |\n| 3 | 4 |\n")
    tables = [block for block in read.blocks if isinstance(block, Table)]
    assert [(table.header, table.rows[0].cells) for table in tables] == [(("a", "b"), ("1", "2"))]


@pytest.mark.parametrize("unit", ["<!--\n", "---\n", "|-", "![", "<a>", "**a", "# x\n", "> ", "`"])
def test_a_quarter_of_a_megabyte_of_one_mark_is_read(unit: str) -> None:
    read_markdown(unit * (250_000 // len(unit)))
