"""Runs, and what they differ in, as tables: the command and the dashboard show the same."""

from __future__ import annotations

from collections.abc import Sequence

from llamafarm.errors import count_of
from llamafarm.monitoring.comparison import verdict_text
from llamafarm.monitoring.formats import format_duration, format_loss
from llamafarm.monitoring.report.tables import Table
from llamafarm.monitoring.run_comparison import Difference, Measure, RowByRow, RunComparison
from llamafarm.monitoring.run_overview import RunOverview

_LONGEST_VALUE = 48
_NOT_THERE = "-"
_ONE_SEED = (
    "A loss moves with the seed too: that a difference is more than noise is said of these rows, "
    "and not of another training with the same values."
)


def overview_table(runs: Sequence[RunOverview]) -> Table:
    """A run a row; what is wrong with one that cannot be read stands in its place."""
    header = ("run", "status", "started", "model", "rows", "steps", "base", "eval loss", "change")
    rows = tuple((run.name, run.status, *_cells(run)) for run in runs)
    return Table((*header, "time"), rows)


def _cells(run: RunOverview) -> tuple[str, ...]:
    of = f" of {run.total_steps:,}" if run.total_steps > run.steps else ""
    change = "" if run.change is None else f"{run.change:+.1f} %"
    return (
        f"{run.started:%Y-%m-%d %H:%M}" if run.started else "",
        run.model,
        "" if run.rows is None else f"{run.rows:,}",
        f"{run.steps:,}{of}" if run.steps or of else "",
        "" if run.base_eval_loss is None else format_loss(run.base_eval_loss),
        "" if run.eval_loss is None else format_loss(run.eval_loss),
        change,
        format_duration(run.seconds) if run.seconds else "",
    )


def difference_tables(comparison: RunComparison) -> tuple[tuple[str, Table], ...]:
    """A table a group, with its name."""
    groups: dict[str, list[Difference]] = {}
    for difference in comparison.differences:
        groups.setdefault(difference.group, []).append(difference)
    return tuple(
        (group, Table(("", *comparison.runs), tuple(map(_difference, found))))
        for group, found in groups.items()
    )


def _difference(difference: Difference) -> tuple[str, ...]:
    return (difference.name, *(_short(value) or _NOT_THERE for value in difference.values))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_VALUE else f"{line[: _LONGEST_VALUE - 1]}…"


def measures_table(comparison: RunComparison) -> Table:
    """A number a row, with its change against the reference behind it."""
    rows = tuple((measure.name, *_measure(measure)) for measure in comparison.measures)
    note = f"Changes are against {comparison.reference}."
    return Table(("", *comparison.runs), rows, note)


def _measure(measure: Measure) -> tuple[str, ...]:
    return tuple(
        f"{text} ({change:+.1f} %)" if change is not None else text or _NOT_THERE
        for text, change in zip(measure.texts, measure.changes, strict=True)
    )


def row_by_row_table(comparison: RunComparison) -> Table | None:
    """The runs that were measured on the rows of the reference; None where there is none."""
    found = [row for row in comparison.row_by_row if row.paired]
    if not found:
        return None
    header = (
        f"against {comparison.reference}",
        "rows",
        "change of loss",
        "± standard error",
        "95 % interval",
        "better",
        "worse",
        "verdict",
    )
    return Table(header, tuple(map(_paired, found)), _ONE_SEED)


def _paired(row: RowByRow) -> tuple[str, ...]:
    paired = row.paired
    if paired is None:
        return (row.run,)
    low, high = paired.low, paired.high
    return (
        row.run,
        f"{paired.rows:,}",
        f"{paired.change:+.4f}",
        "" if row.standard_error is None else f"{row.standard_error:.4f}",
        "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}",
        f"{paired.better:,}",
        f"{paired.worse:,}",
        verdict_text(paired),
    )


def not_comparable(comparison: RunComparison) -> tuple[str, ...]:
    """A line for every run whose rows are not those of the reference."""
    return tuple(
        f"{row.run} and {comparison.reference} cannot be compared row by row: {row.why_not}"
        for row in comparison.row_by_row
        if not row.paired
    )


def count_text(runs: Sequence[RunOverview]) -> str:
    """`3 runs, 1 of them running`."""
    running = sum(run.status == "running" for run in runs)
    return count_of(len(runs), "run") + (f", {running:,} of them running" if running else "")
