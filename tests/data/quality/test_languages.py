from __future__ import annotations

import pytest

from llamafarm.data.quality import languages
from llamafarm.data.rows import Conversation
from tests.data.quality.conversations import finding_of, plain_rows, qa, report_of

GERMAN = (
    "Bluthochdruck verursacht lange Zeit keine Beschwerden und wird deshalb oft erst durch Zufall "
    "entdeckt, obwohl er Herz und Nieren schadet."
)
RUSSIAN = (
    "Высокое артериальное давление долгое время не вызывает никаких жалоб, поэтому его часто "
    "обнаруживают случайно."
)
CHINESE = "高血压在很长一段时间内不会引起任何不适，因此常常是偶然发现的，尽管它会损害心脏和肾脏。"
FRENCH = (
    "L'hypertension artérielle ne provoque longtemps aucun symptôme, si bien qu'on la découvre "
    "souvent par hasard."
)


def mixed(*others: str) -> list[Conversation]:
    return [*plain_rows(60), *(qa("And?", text, 61 + i) for i, text in enumerate(others))]


def test_languages_are_counted_the_most_frequent_first() -> None:
    report = report_of([*plain_rows(5), qa("Warum?", GERMAN, 6), qa("Почему?", RUSSIAN, 7)])
    assert report.languages == (("en", 5), ("de", 1), ("ru", 1))
    assert report.languages_rows == 7


def test_rows_in_another_language_are_named_when_nearly_all_are_in_one() -> None:
    finding = finding_of(report_of(mixed(GERMAN, RUSSIAN, CHINESE)), "language")
    assert finding is not None and finding.rows == 3
    assert [example.source.line for example in finding.examples] == [61, 62, 63]
    assert finding.text.startswith("3 rows in another language (de 1, ru 1, zh 1)")


def test_no_row_is_odd_where_several_languages_are_at_home() -> None:
    rows = [*plain_rows(30), *(qa("Warum?", f"{GERMAN} Fall {i}.", i) for i in range(10))]
    assert finding_of(report_of(rows), "language") is None


@pytest.mark.parametrize(
    "text",
    [
        "Ja, genau so.",
        "Amoxicillin 500 mg, ibuprofen 400 mg, paracetamol 1 g, metformin 850 mg, omeprazole 20 mg",
        "def area(r):\n    return 3.14159 * r ** 2\n\nfor r in range(10):\n    print(area(r), r)",
        '{"name": "x", "tags": ["a", "b", "c"], "size": 3, "items": [{"id": 1}, {"id": 2}]}',
        r"$$\int_0^\infty e^{-x^2} dx = \frac{\sqrt{\pi}}{2}$$ and $\sum_{k=1}^n k = n(n+1)/2$",
        "https://example.org/der/die/das https://example.org/und/oder/aber/nicht/doch/ganz/sehr",
        "ACGTACGTTAGCATCGATCGATCGGCTAGCTAGCATCGATCAGCATCAGCTACGACTACGACTAGCATCGACTAGC",
    ],
)
def test_short_texts_code_and_lists_are_not_taken_for_another_language(text: str) -> None:
    assert finding_of(report_of(mixed(text)), "language") is None


def test_the_answer_has_the_say_where_it_is_long_enough() -> None:
    rows = [qa(f"Translate sentence {i}, please, and take your time.", GERMAN) for i in range(3)]
    assert report_of(rows).languages == (("de", 3),)


def test_a_large_side_is_sampled_evenly_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(languages, "SAMPLE_ROWS", 50)
    french_last = [*plain_rows(300), *(qa("Et?", FRENCH, 301 + i) for i in range(300))]
    report = report_of(french_last)
    counts = dict(report.languages)
    assert report.languages_rows == 50
    assert 10 < counts["en"] < 40 and 10 < counts["fr"] < 40
    (note,) = report.notes
    assert note == (
        "languages: 50 of the 600 train rows were identified, 300 characters a row; "
        "scripts were counted in all rows"
    )
    assert report == report_of(french_last)


def test_scripts_are_counted_in_every_row_and_odd_ones_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(languages, "SAMPLE_ROWS", 1)
    report = report_of([*plain_rows(60), qa("Почему?", RUSSIAN, 61)])
    assert report.scripts == (("Latin", 60), ("Cyrillic", 1))
    finding = finding_of(report, "script")
    assert finding is not None and finding.examples[0].source.line == 61


def test_a_row_in_another_language_is_not_named_again_for_its_script() -> None:
    report = report_of(mixed(RUSSIAN))
    assert finding_of(report, "language") is not None
    assert finding_of(report, "script") is None
