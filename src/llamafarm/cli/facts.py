"""Data, forecast and other facts as aligned lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamafarm.errors import count_of
from llamafarm.monitoring.formats import format_bytes, format_duration, format_rate

if TYPE_CHECKING:
    from llamafarm.data.report import DataReport, LengthSummary
    from llamafarm.planning.plan import Forecast

_ROWS_NAMED = 3


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, indented by two; the last column is as long as it is."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(columns)]
    return "\n".join(
        "  " + "  ".join(f"{cell:<{widths[i]}}" for i, cell in enumerate(row)).rstrip()
        for row in rows
    )


def data_facts(report: DataReport) -> list[tuple[str, str]]:
    """What was found in the data."""
    facts = [
        ("data", f"{report.data_format}; {report.split}"),
        ("training", _side(report.train)),
        ("lengths", _lengths(report.train)),
    ]
    if report.eval is not None:
        facts.append(("evaluation", _side(report.eval)))
    if report.truncated:
        rows = [f"{row.source} ({row.tokens:,} tokens)" for row in report.truncated]
        facts.append(("cut", f"{count_of(len(rows), 'row')} too long: {_first(rows)}"))
    if report.dropped:
        rows = [f"{row.source} ({row.reason})" for row in report.dropped]
        facts.append(("left out", f"{count_of(len(rows), 'row')}: {_first(rows)}"))
    return facts


def forecast_facts(forecast: Forecast) -> list[tuple[str, str]]:
    """What the run will need, against what there is."""
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in forecast.memory_parts)
    memory = f"{format_bytes(forecast.memory_bytes)} of {format_bytes(forecast.memory_limit_bytes)}"
    disk = f"{format_bytes(forecast.disk_bytes)} of {format_bytes(forecast.disk_free_bytes)} free"
    facts = [("memory", f"{memory}  ({parts})" if parts else memory), ("disk", disk)]
    if forecast.seconds is not None:
        speed = forecast.tokens_per_second
        at = f" at {format_rate(speed)}" if speed is not None else ""
        facts.append(("time", f"about {format_duration(forecast.seconds)}{at}  ({forecast.basis})"))
    else:
        facts.append(("time", f"not known before the first steps  ({forecast.basis})"))
    return facts


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


def _first(rows: Sequence[str]) -> str:
    more = len(rows) - _ROWS_NAMED
    return ", ".join(rows[:_ROWS_NAMED]) + (f" and {more:,} more" if more > 0 else "")
