from __future__ import annotations

import re

import pytest

from llamafarm.data.quality.characters import trouble_in
from llamafarm.data.quality.scripts import makeup
from tests.data.quality.conversations import finding_of, qa, report_of


def troubles(text: str) -> set[str]:
    return {kind for kind, _ in trouble_in(text, makeup(text))}


def wrongly_read(text: str, encoding: str) -> str:
    return text.encode().decode(encoding, "replace")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Das Café schließt um fünf.", "latin-1"),
        ("Das Café schließt um fünf.", "cp1252"),
        ("It’s “fine” – really…", "cp1252"),
        ("naïve", "cp1252"),
        ("€ 20", "cp1252"),
        ("Привет, как дела?", "latin-1"),
        ("高血压是一种病。", "latin-1"),
        ("It’s fine", "cp1251"),
        ("It’s fine", "mac_roman"),
        ("The café 😀", "cp1252"),
    ],
)
def test_text_read_in_a_wrong_encoding_is_found(text: str, encoding: str) -> None:
    wrong = wrongly_read(text, encoding)
    assert "mojibake" in troubles(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "Das Café schließt um fünf – wirklich. „Spaß“ und »Maß«, 20 °C, § 5, 3 × 4 = 12 m².",
        "« L’été à Paris » ; il a dit « café », puis « à bientôt » : n’est-ce pas ? Ça, c’est ½.",
        "NÃO É FÁCIL: SÃO PAULO, ÂNGULO, coração, à «frente», ‘é’, “Ê”.",
        "Tiếng Việt: Phở Bò, Đà Nẵng, ước mơ, “à” ‘ã’.",
        "Příliš žluťoučký kůň úpěl ďábelské ódy – „č“…",
        "Привет — «как дела»? Всё №1… В 20°С и Р°",
        "Ελληνικά: «καλημέρα»… Ώρα 12 μ.μ. · τέλος",
        "高血压——一种“常见”的病…… ×2 ±5 °C",
        "Æble på Ålesund, façade, Ñandú ¡Hola! ¿Qué?",
        "½ tsp · 180°C • ¼ cup® ™ ¥500 £20 €30 … ‘x’",
        "🙂 👨‍👩‍👧 ☕ ✓",
    ],
)
def test_good_text_of_many_languages_has_no_trouble(text: str) -> None:
    assert troubles(text) == set()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("lost \ufffd letter", "replacement_character"),
        ("a\x00b", "control_character"),
        ("colour \x1b[31m", "control_character"),
        ("é \x07", "control_character"),
        ("next\x85line", "control_character"),
        ("delete\x7f", "control_character"),
        ("half \ud83d of it", "lone_surrogate"),
        ("zero\u200bwidth", "invisible_character"),
        ("\ufeffbyte order mark", "invisible_character"),
        ("right \u202eto left", "invisible_character"),
        ("soft\u00adhyphen", "invisible_character"),
        ("la\u200dtin", "invisible_character"),
        ("ภาษา\u200bไทย\u202e", "invisible_character"),
        ("tags \U000e0041\U000e0042", "invisible_character"),
        ("fish &amp; chips", "html"),
        ("one<br>two<br/>", "html"),
        ("<p class='x'>Text</p>", "html"),
        ("caf&#233;", "html"),
    ],
)
def test_each_kind_of_trouble_is_found(text: str, kind: str) -> None:
    assert troubles(text) == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "tabs\tand\r\nlines\n",
        "می‌خواهم بروم",
        "क्‍ष and क्‌ष",
        "ภาษา\u200bไทย",
        "عربي\u200fعربي שלום\u200e",
        "England 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "a < b & c > d, x<y, AT&T; R&D",
        "In HTML, write <br> for a line.",
        "Use `<p>` here",
        "```\n<div>&amp;</div>\n```",
        "<think>Hm.</think> Yes.",
        "List<String> and <b",
    ],
)
def test_characters_that_belong_there_are_left_alone(text: str) -> None:
    assert troubles(text) == set()


def test_excerpts_show_the_place_and_the_advice_what_to_type() -> None:
    text = "A long sentence that goes on and on until it says cafÃ© and ends a while later."
    finding = finding_of(report_of([qa("Where?", text)]), "mojibake")
    assert finding is not None
    assert "cafÃ©" in finding.examples[0].excerpt and finding.level == "warning"
    assert "llamafarm prepare" in finding.advice


@pytest.mark.parametrize(
    "text", ["a\x00b\x1bc", "é\x85\x07", "zero\u200bwidth \u202e\ufeff", "tags \U000e0041"]
)
def test_what_the_advice_removes_is_found_no_more(text: str) -> None:
    (finding,) = report_of([qa("Which?", text)]).findings
    pattern = re.search(r"remove_patterns: \['(.*)'\]$", finding.advice)
    assert pattern is not None
    assert troubles(re.sub(pattern[1], "", text)) == set()


@pytest.mark.parametrize("unit", ["é\u00a0» ", "<p ", "&#1", "ВъС", "à ", "a\u200d", "Ã", "<a <"])
def test_a_megabyte_of_hostile_text_is_read_in_one_go(unit: str) -> None:
    text = unit * (300_000 // len(unit))
    assert troubles(text) <= {"mojibake", "invisible_character"}
