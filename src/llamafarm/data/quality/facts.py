"""What was noticed in the rows, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from llamafarm.data.quality.report import Finding, LengthStats, QualityReport
from llamafarm.errors import count_of

_ROWS_NAMED = 3
_LANGUAGES_NAMED = 3


def quality_facts(report: QualityReport) -> list[tuple[str, str]]:
    """Facts about the rows, then the findings, each with its rows and a hint."""
    facts: list[tuple[str, str]] = []
    if report.turns:
        facts.append(("turns", _counts(report.turns, len(report.turns))))
    if report.languages:
        facts.append(("languages", _languages(report)))
    if len(report.scripts) > 1:
        facts.append(("scripts", _counts(report.scripts, _LANGUAGES_NAMED)))
    if report.prompts is not None:
        facts.append(("prompts", _lengths(report.prompts)))
    if report.answers is not None:
        facts.append(("answers", _lengths(report.answers)))
    facts += [("note", note) for note in report.notes]
    return [*facts, *(line for finding in report.findings for line in finding_lines(finding))]


def finding_lines(finding: Finding) -> list[tuple[str, str]]:
    """The finding, its first rows, and the hint, one a line under the finding's level."""
    named = finding.examples[:_ROWS_NAMED]
    more = finding.rows - len(named)
    return [
        (finding.level, finding.text),
        *(("", f"{example.source}  {example.excerpt}") for example in named),
        *([("", f"and {more:,} more")] if named and more > 0 else []),
        ("", f"hint: {finding.advice}"),
    ]


def _languages(report: QualityReport) -> str:
    known = [(code, rows) for code, rows in report.languages if code != "und"]
    parts = [_counts(known, _LANGUAGES_NAMED)] if known else []
    parts += [f"{n:,} too short or unclear" for code, n in report.languages if code == "und"]
    sampled = f"  (of {count_of(report.languages_rows, 'row')} looked at)"
    return ", ".join(parts) + (sampled if report.languages_rows < report.rows else "")


def _counts(counts: Sequence[tuple[str, int]], named: int) -> str:
    more = len(counts) - named
    listed = ", ".join(f"{name} {count:,}" for name, count in counts[:named])
    return listed + (f" and {more:,} more" if more > 0 else "")


def _lengths(lengths: LengthStats) -> str:
    return (
        f"{lengths.shortest:,} to {lengths.longest:,} characters, median {lengths.median:,}, "
        f"95 % up to {lengths.p95:,}"
    )
