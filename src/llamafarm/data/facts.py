"""A data report as facts: label and text; an empty label goes on with the one before."""

from __future__ import annotations

from collections.abc import Sequence

from llamafarm.data.quality.facts import quality_facts
from llamafarm.data.report import (
    DataReport,
    DuplicateCounts,
    LengthSummary,
    SourceFile,
    TokenLedger,
    leak_text,
    leakage_text,
)
from llamafarm.errors import count_of

_ROWS_NAMED = 3


def data_facts(report: DataReport) -> list[tuple[str, str]]:
    """What was found in the data."""
    facts = [("data", f"{report.data_format}; {report.split}")]
    facts += [("", _file(file)) for file in report.files if len(report.files) > 1]
    facts += [
        ("training", _side(report.train)),
        ("lengths", _lengths(report.train)),
        *([("", histogram)] if (histogram := _histogram(report.train)) else []),
    ]
    if report.eval is not None:
        facts.append(("evaluation", _side(report.eval)))
    if report.ledger is not None:
        facts += _ledger(report.ledger)
    if report.truncated:
        facts.append(("cut", _cut(report)))
    if report.rows_dropped:
        facts.append(("left out", _left_out(report)))
    if report.duplicates is not None:
        facts.append(("duplicates", _duplicates(report.duplicates)))
    facts += [("leakage", leakage_text(leaks)) for leaks in report.leakage]
    facts += [
        ("", leak_text(leak)) for leaks in report.leakage for leak in leaks.examples[:_ROWS_NAMED]
    ]
    if report.quality is not None:
        facts += quality_facts(report.quality)
    return facts


def _file(file: SourceFile) -> str:
    weight = f", weight {file.weight:g}" if file.weight != 1.0 else ""
    return f"{file.role}: {file.name}, {count_of(file.rows, 'row')}{weight}"


def _histogram(rows: LengthSummary) -> str:
    """`12 rows up to 64 tokens, 80 up to 128, 8 up to 256`."""
    if len(rows.histogram) < 2:
        return ""
    (least, count), *more = [(tokens, count) for tokens, count in rows.histogram if count]
    others = "".join(f", {count:,} up to {tokens:,}" for tokens, count in more)
    return f"{count_of(count, 'row')} up to {least:,} tokens{others}"


def _ledger(ledger: TokenLedger) -> list[tuple[str, str]]:
    repeated = ledger.rows_kept > ledger.rows_in - ledger.rows_dropped
    kept = f"{ledger.rows_kept:,} {'written (weights repeat rows)' if repeated else 'kept'}"
    kept = f"{ledger.rows_in:,} read, {kept}, {ledger.rows_dropped:,} left out"
    share = ledger.trained_tokens / ledger.tokens if ledger.tokens else 0.0
    tokens = f"{ledger.trained_tokens:,} of {ledger.tokens:,} tokens are trained ({share:.0%})"
    facts = [("rows", kept), ("tokens", tokens)]
    if ledger.answers:
        ends = (
            f"trained after {ledger.answers_end_trained:,} of {count_of(ledger.answers, 'answer')}"
        )
        facts.append(("end token", ends))
    facts.append(("template", f"sha256 {ledger.template_sha256[:12]}"))
    return facts


def _cut(report: DataReport) -> str:
    rows = [
        f"{row.source} ({row.tokens:,} tokens{f', lost: {row.lost!r}' if row.lost else ''})"
        for row in report.truncated
    ]
    total = report.rows_truncated
    return f"{count_of(total, 'row')} too long: {_first(rows, total)}"


def _left_out(report: DataReport) -> str:
    rows = [f"{row.source} ({row.reason})" for row in report.dropped]
    total = report.rows_dropped
    kinds = ""
    if report.ledger is not None and (len(report.ledger.dropped) > 1 or not rows):
        counted = ", ".join(f"{count.rows:,} {count.kind}" for count in report.ledger.dropped)
        kinds = f" ({counted})"
    named = f": {_first(rows, total)}" if rows else ""
    return f"{count_of(total, 'row')}{kinds}{named}"


def _duplicates(counts: DuplicateCounts) -> str:
    if not counts.exact and not counts.near:
        return "none"
    near = f"{counts.near:,} nearly (similarity {counts.similarity:g} and more)"
    return f"rows that repeat others: {counts.exact:,} exactly, {near}"


def _side(rows: LengthSummary) -> str:
    return (
        f"{count_of(rows.rows, 'row')}, {rows.total_tokens:,} tokens, "
        f"{rows.trained_tokens:,} of them in answers"
    )


def _lengths(rows: LengthSummary) -> str:
    return (
        f"{rows.shortest:,} to {rows.longest:,} tokens a row, median {rows.median:,}, "
        f"95 % up to {rows.p95:,}"
    )


def _first(rows: Sequence[str], total: int) -> str:
    more = total - min(len(rows), _ROWS_NAMED)
    return ", ".join(rows[:_ROWS_NAMED]) + (f" and {more:,} more" if more > 0 else "")
