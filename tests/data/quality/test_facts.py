from __future__ import annotations

from llamafarm.cli.facts import aligned
from llamafarm.data.quality.facts import finding_lines, quality_facts
from llamafarm.data.quality.report import Finding, LengthStats, QualityReport, RowExample
from llamafarm.data.rows import RowRef

EXAMPLES = tuple(RowExample(RowRef("rows.jsonl", line), f"text {line}") for line in (3, 9, 12, 40))
FINDING = Finding("email", 1204, "1,204 rows hold an e-mail address", EXAMPLES, "do it", "warning")


def _report(findings: tuple[Finding, ...] = (), notes: tuple[str, ...] = ()) -> QualityReport:
    return QualityReport(
        rows=2000,
        sides=(("train", 1800), ("eval", 200)),
        turns=(("user", 2000), ("assistant", 2001)),
        languages=(("en", 1900), ("de", 40), ("fr", 20), ("es", 5), ("it", 2), ("und", 33)),
        languages_rows=2000,
        scripts=(("Latin", 2000),),
        prompts=LengthStats(2000, 4, 80, 300, 1200),
        answers=LengthStats(2000, 1, 400, 900, 12_000),
        findings=findings,
        notes=notes,
    )


def test_the_facts_of_the_rows_are_lines() -> None:
    assert aligned(quality_facts(_report())).splitlines() == [
        "  turns      user 2,000, assistant 2,001",
        "  languages  en 1,900, de 40, fr 20 and 2 more, 33 too short or unclear",
        "  prompts    4 to 1,200 characters, median 80, 95 % up to 300",
        "  answers    1 to 12,000 characters, median 400, 95 % up to 900",
    ]


def test_a_finding_shows_three_rows_counts_the_others_and_ends_in_a_hint() -> None:
    assert finding_lines(FINDING) == [
        ("warning", "1,204 rows hold an e-mail address"),
        ("", "rows.jsonl:3  text 3"),
        ("", "rows.jsonl:9  text 9"),
        ("", "rows.jsonl:12  text 12"),
        ("", "and 1,201 more"),
        ("", "hint: do it"),
    ]


def test_findings_and_notes_follow_the_facts() -> None:
    labels = [label for label, _ in quality_facts(_report((FINDING,), ("half was read",)))]
    assert labels[-7:] == ["note", "warning", "", "", "", "", ""]


def test_a_report_of_nothing_says_nothing() -> None:
    empty = QualityReport(0, (), (), (), 0, (), None, None, (), ())
    assert quality_facts(empty) == []


def test_several_scripts_and_a_sample_are_named() -> None:
    report = QualityReport(
        9000, (("train", 9000),), (), (("und", 5000),), 5000, (("Latin", 8000), ("Han", 1000)),
        None, None, (), (),
    )  # fmt: skip
    facts = dict(quality_facts(report))
    assert facts["scripts"] == "Latin 8,000, Han 1,000"
    assert facts["languages"] == "5,000 too short or unclear  (of 5,000 rows looked at)"
