"""`llamafarm runs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamafarm.cli.facts import aligned
from llamafarm.cli.options import Json, read_flag
from llamafarm.cli.output import result, result_json, say
from llamafarm.cli.usage import problems_error
from llamafarm.errors import Problem

if TYPE_CHECKING:
    from llamafarm.monitoring.report.tables import Table
    from llamafarm.monitoring.run_comparison import RunComparison
    from llamafarm.run_directories import RunList

EXAMPLE = """
llamafarm runs
llamafarm runs fine_tuned_models/first fine_tuned_models/second
"""


def command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH…",
            help="A directory with runs (left out: fine_tuned_models), or two or more runs to "
            "compare; the first is what the others are compared with.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="BY",
            help="started (the newest first), name, status, loss, change, time or speed.",
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """List the runs of a directory, or compare some of them.

    What differed between them in strategy, data, model, versions and machine; what came of each;
    and, where they were evaluated on the same rows, whether that is more than noise.
    """
    from llamafarm import api

    named = paths or []
    if len(named) > 1:
        if sort is not None:
            text = "has no effect where runs are compared: they stand as they are named"
            raise problems_error([Problem(text, where="--sort")])
        comparison = api.compare_runs(named)
        if json_output:
            result_json(comparison)
        else:
            result(_comparison(comparison))
        return
    by = "started" if sort is None else read_flag("--sort", sort, _sort_key)
    found = api.runs(named[0], sort=by) if named else api.runs(sort=by)
    if json_output:
        result_json({"directory": found.directory, "runs": found.runs, "is_whole": found.is_whole})
        return
    result(_list(found))
    for run in found.runs:
        for problem in run.problems:
            say(f"warning: {run.name}: {problem}")
    if not found.is_whole:
        say(f"warning: only the first {len(found.runs):,} runs are listed")


def _sort_key(text: str) -> str:
    from llamafarm.monitoring.run_overview import SORT_KEYS

    if text not in SORT_KEYS:
        raise ValueError(f"expected one of {', '.join(SORT_KEYS)}")
    return text


def _list(found: RunList) -> str:
    from llamafarm.monitoring.report.run_tables import count_text, overview_table

    head = f"{found.directory}: {count_text(found.runs)}"
    return "\n".join([head, *([_lines(overview_table(found.runs))] if found.runs else [])])


def _comparison(comparison: RunComparison) -> str:
    """What differed, what came of it, row by row."""
    from llamafarm.monitoring.report.run_tables import (
        difference_tables,
        measures_table,
        not_comparable,
        row_by_row_table,
    )

    groups = difference_tables(comparison)
    blocks = [f"what differed: {group}\n{_lines(table)}" for group, table in groups]
    if not groups:
        blocks.append("what differed: nothing that is recorded")
    blocks.append(f"what came of it\n{_lines(measures_table(comparison))}")
    by_row = row_by_row_table(comparison)
    if by_row:
        blocks.append(f"row by row, on the same evaluation rows\n{_lines(by_row)}")
    blocks += ["\n".join(not_comparable(comparison))]
    blocks += ["\n".join(f"warning: {text}" for text in comparison.warnings)]
    return "\n\n".join(block for block in blocks if block)


def _lines(table: Table) -> str:
    """Columns without a value are left out."""
    rows: Sequence[Sequence[str]] = table.rows
    kept = [i for i in range(len(table.header)) if any(row[i] for row in rows)]
    lines = aligned([[row[i] for i in kept] for row in (table.header, *rows)])
    return f"{lines}\n  {table.note}" if table.note else lines
