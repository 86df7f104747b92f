from __future__ import annotations

import pytest

from llamafarm.data.documents.blocks import Code, Heading, Table
from llamafarm.data.documents.html import BOILERPLATE, declared_encoding, html_blocks
from llamafarm.data.documents.ledger import Ledger
from llamafarm.data.documents.text_repair import SPACES
from llamafarm.errors import DataError

from .made_rows import read_html

PAGE = """<!DOCTYPE html>
<html><head><title>Site</title><style>p { color: red }</style></head>
<body>
<header><a href="/">Home of the site</a></header>
<nav><ul><li>One</li><li>Two</li></ul></nav>
<div id="cookie-banner">We use cookies. <button>Accept</button></div>
<main>
<h1>Product <em>FAQ</em></h1>
<p>An introduction&nbsp;that
goes on.<br>A second line.</p>
<script>var hidden = "<p>not shown</p>";</script>
<h2>Questions</h2>
<p><b>Q:</b> What is it?</p>
<p><b>A:</b> A <i>thing</i>.</p>
<p>And more.</p>
</main>
<aside>Related pages</aside>
<footer>(c) 2026 the company</footer>
</body></html>
"""


def test_a_page_is_what_it_says_without_its_furniture() -> None:
    read = read_html(PAGE)
    assert read.pairs() == [
        ("Product FAQ", "An introduction that goes on.\nA second line."),
        ("What is it?", "A thing.\n\nAnd more."),
    ]
    assert [row.number for row in read.rows] == [8, 13]
    assert read.changed() == {BOILERPLATE: 5, SPACES: 1}


def test_line_ends_of_the_source_are_spaces() -> None:
    assert read_html("<p>one\ntwo <b>three\nfour</b>\nfive</p>").texts() == [
        "one two three four five"
    ]


def test_lists_keep_their_marks() -> None:
    read = read_html("<p>So:</p><ul><li>one<li>two<ol><li>a</li><li>b</li></ol></ul><p>End.</p>")
    assert read.texts() == ["So:\n\n- one\n- two\n  1. a\n  2. b\n\nEnd."]


def test_code_is_kept_as_it_is() -> None:
    read = read_html("<pre><code># no heading\n  x = 1 &lt; 2\n</code></pre>")
    assert read.blocks == [Code("```\n# no heading\n  x = 1 < 2\n```", 1)]


def test_entries_of_lists_and_details_are_sections_that_end() -> None:
    read = read_html(
        "<h1>Help</h1><dl><dt>Term</dt><dd>Its meaning.</dd></dl>"
        "<details><summary>How much?</summary><p>Five.</p></details><p>After.</p>"
    )
    assert read.pairs() == [
        ("Help > Term", "Its meaning."),
        ("How much?", "Five."),
        ("Help", "After."),
    ]


def test_tables_of_questions_are_pairs_and_layout_is_flow() -> None:
    read = read_html(
        "<table><tr><th>Question</th><th>Answer</th></tr>"
        "<tr><td>Who?</td><td><p>Me</p><p>and you</p></td></tr></table>"
        "<table><tr><td><h2>Left</h2>Text</td><td>Right</td></tr><tr><td>Below</td></tr></table>"
    )
    assert read.pairs()[0] == ("Who?", "Me\nand you")
    assert sum(isinstance(block, Table) for block in read.blocks) == 1
    assert Heading(2, "Left", 1) in read.blocks


def test_a_heading_in_the_header_of_an_article_is_kept() -> None:
    read = read_html("<article><header><h1>Story</h1></header><p>Text.</p></article>")
    assert read.pairs() == [("Story", "Text.")]


def test_a_page_about_cookies_is_no_cookie_note() -> None:
    page = '<body class="cookies"><article class="cookie-recipes"><p>Bake them.</p></article>'
    assert read_html(page).texts() == ["Bake them."]


def test_a_page_inside_of_a_form_keeps_its_text_and_loses_its_controls() -> None:
    read = read_html(
        '<body><form id="aspnetForm"><input type="hidden" value="state"><h1>Opening hours</h1>'
        "<p>From nine to five.</p><select><option>English</option></select>"
        "<p><label>Town</label> Bern.</p><button>Send</button></form></body>"
    )
    assert read.pairs() == [("Opening hours", "From nine to five.\n\nTown Bern.")]


def test_a_form_of_nothing_but_controls_is_furniture() -> None:
    read = read_html(
        "<p>Before.</p>\n<form>\n<label>Your <b>name</b></label> <input>\n<button>Send</button>\n"
        "</form>\nAfter."
    )
    assert read.texts() == ["Before.\n\nAfter."]
    assert read.changed() == {BOILERPLATE: 1}


@pytest.mark.parametrize(
    "form",
    [
        "<form><h3>Our newsletter</h3><p>The news of each week.</p><input></form>",
        "<form>Search: <input><button>Go</button></form>",
        "<form></form>",
    ],
)
def test_a_form_beside_the_text_is_furniture(form: str) -> None:
    read = read_html(f"<p>Real text.</p>{form}")
    assert (read.texts(), read.pairs()) == (["Real text."], [])


@pytest.mark.parametrize("tag", ["main", "article", "h1"])
def test_a_form_around_the_main_part_of_a_page_is_kept(tag: str) -> None:
    read = read_html(f"<p>Much longer than the text in it.</p><form><{tag}>Bern</{tag}> is</form>")
    assert "is" in [getattr(block, "text", "") for block in read.blocks]


def test_furniture_does_not_count_as_text_outside_of_a_form() -> None:
    menu = "<nav>One, two, three, four, and many more places of this site.</nav>"
    assert read_html(f"{menu}<form><p>Short text.</p><input></form>").texts() == ["Short text."]


@pytest.mark.parametrize("page", ["", " \n", "<!-- nothing -->", "<html></html>", "<script>x"])
def test_a_page_without_text_has_no_blocks(page: str) -> None:
    assert read_html(page).blocks == []


@pytest.mark.parametrize(
    "page", ["<p>one<p>two", "<b>one</i></b><p>two", "one<div>two", "one<p>two<"]
)
def test_broken_markup_is_read_as_far_as_it_goes(page: str) -> None:
    (text,) = read_html(page).texts()
    assert text.startswith("one")
    assert "two" in text


def test_a_page_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(DataError, match="nested too deeply") as caught:
        list(html_blocks("<div>" * 5_000 + "deep", "x.html", Ledger().of_file("x.html", "line")))
    assert caught.value.hint


@pytest.mark.parametrize(
    "unit", ["<!--", "<b>", "<p", "&", "<form><i>", "<table><tr><td>", '<p class="']
)
def test_a_hundred_kilobytes_of_one_tag_are_read_or_refused(unit: str) -> None:
    try:
        read_html(unit * (100_000 // len(unit)))
    except DataError as fault:
        assert "nested too deeply" in fault.summary


def test_a_page_says_its_encoding() -> None:
    assert declared_encoding(b'<html><meta charset="Windows-1252">') == "Windows-1252"
    pragma = b'<META http-equiv="Content-Type" content="text/html; charset=iso-8859-2">'
    assert declared_encoding(pragma) == "iso-8859-2"
    assert declared_encoding(b"<p>charset=utf-8</p>") == ""
