"""`llamafarm inspect`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamafarm.cli.facts import aligned
from llamafarm.cli.options import (
    AllowLeakage,
    FlagValue,
    Json,
    allowed_leakage,
    overrides_of,
    read_flag,
    row_count,
)
from llamafarm.cli.output import result, result_json, result_marked, say
from llamafarm.data.facts import data_facts
from llamafarm.errors import EXIT_GATE, EXIT_OK, count_of
from llamafarm.monitoring.work import WorkProgress

if TYPE_CHECKING:
    from llamafarm.api import Inspection

EXAMPLE = """
llamafarm inspect data.jsonl --preview 2
llamafarm inspect train.jsonl --eval-dataset eval.jsonl
"""


def command(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A file of rows, a directory, dataset_info.json#NAME, or an axolotl config.",
            show_default=False,
        ),
    ],
    eval_dataset: Annotated[
        str | None,
        typer.Option("--eval-dataset", metavar="FILE", help="Rows that are evaluated on."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            metavar="MODEL",
            help="Whose tokenizer and chat template to use. Left out: smollm2-135m-instruct.",
        ),
    ] = None,
    preview: Annotated[
        str,
        typer.Option(
            "--preview", metavar="N", help="Show so many rows, what is trained in them marked."
        ),
    ] = "0",
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write report and preview as a web page too."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="A key of the strategy, e.g. dataset.group_by=source. May be repeated.",
        ),
    ] = None,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read; count them."),
    ] = False,
    allow_leakage: AllowLeakage = False,
    json_output: Json = False,
) -> None:
    """Show what is in a dataset before it is trained on.

    Reads the rows as train does: formats, counts, duplicates, leaks between training and
    evaluation rows, lengths, what is cut, what is trained, personal data. Exit code 3 when more
    than 1 % of the evaluation rows are given away by training rows.
    """
    from llamafarm import api

    request = api.InspectRequest(
        overrides=overrides_of(
            [
                FlagValue("DATA", data, "dataset.path"),
                FlagValue("--eval-dataset", eval_dataset, "dataset.eval_file"),
                FlagValue("--base-model", base_model, "base_model.id"),
                allowed_leakage(allow_leakage),
            ],
            settings or (),
        ),
        skip_bad_rows=skip_bad_rows,
        preview=read_flag("--preview", preview, row_count),
    )
    with contextlib.closing(WorkProgress(sys.stderr)) as progress:
        found = api.inspect(request, sinks=(progress,))
    if html is not None:
        api.write_data_page(html, f"Data: {data}", data_facts(found.report), found)
        say(f"written: {html}")
    if json_output:
        result_json(_to_json(found))
        raise typer.Exit(EXIT_GATE if found.refused else EXIT_OK)
    _print(found)
    if found.refused is not None:
        raise found.refused


def _to_json(found: Inspection) -> dict[str, object]:
    return {
        "ok": found.refused is None,
        "data": found.report,
        "decisions": found.decisions,
        "rows": found.rows,
        "refused": found.refused.summary if found.refused else None,
    }


def _print(found: Inspection) -> None:
    """Results on stdout, warnings and notices on stderr."""
    from llamafarm.data.leakage import leakage_warnings
    from llamafarm.data.summary import quality_warnings

    result(aligned(data_facts(found.report)), wrap=True)
    for row in found.rows:
        trained = f"{row.trained_tokens:,} of them trained"
        result(f"\n--- {row.source}: {count_of(row.tokens, 'token')}, {trained}")
        result_marked((piece.text, piece.trained) for piece in row.pieces)
    shown = quality_warnings(found.report.quality) if found.report.quality else []
    if found.refused is not None:  # which says the same, with the rows
        shown += leakage_warnings(found.report.leakage)
    for warning in found.report.warnings:
        if warning not in shown:
            say(f"warning: {warning}", wrap=True)
    for decision in found.decisions:
        if decision.source in ("warning", "notice"):
            say(f"{decision.source}: {decision.reason}", wrap=True)
    for notice in found.report.notices:
        say(f"notice: {notice}", wrap=True)
