"""`llamafarm setup`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamafarm.cli.decisions import decisions_for
from llamafarm.cli.facts import aligned, forecast_facts
from llamafarm.cli.options import (
    AllowCustomMetrics,
    AllowLeakage,
    Json,
    allowed_leakage,
    overrides_of,
)
from llamafarm.cli.output import result, result_json, say
from llamafarm.data.facts import data_facts
from llamafarm.errors import EXIT_GATE, EXIT_OK, EXIT_USER, GateRefused, UserError, count_of
from llamafarm.monitoring.work import WorkProgress

if TYPE_CHECKING:
    from llamafarm.api import SetupReport

EXAMPLE = """
llamafarm setup strategies.yaml --strategy my_strategy --verify-only
"""


def command(
    strategy_file: Annotated[
        Path,
        typer.Argument(metavar="STRATEGY_FILE", help="The file to check.", show_default=False),
    ],
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", metavar="NAME", help="Which strategy; not needed where there is one."
        ),
    ] = None,
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Install nothing and download nothing.")
    ] = False,
    allow_leakage: AllowLeakage = False,
    allow_custom_metrics: AllowCustomMetrics = False,
    json_output: Json = False,
) -> None:
    """Check everything that train needs, and train nothing.

    Validates the strategy, reads and inspects the data, looks at the machine, decides every value
    with its reason, and forecasts memory, time and disk. Every problem is reported at once.
    """
    from llamafarm import api

    with contextlib.closing(WorkProgress(sys.stderr)) as progress:
        report = api.setup(
            strategy_file,
            strategy,
            verify_only=verify_only,
            overrides=overrides_of([allowed_leakage(allow_leakage)], ()),
            allow_custom_metrics=allow_custom_metrics,
            sinks=(progress,),
        )
    if json_output:
        result_json(_to_json(report))
        refused = EXIT_GATE if report.refused else EXIT_USER
        raise typer.Exit(EXIT_OK if report.ok else refused)
    _print(report)
    if not report.ok:
        kind = GateRefused if report.refused else UserError
        count = count_of(len(report.problems), "problem")
        raise kind(f"{strategy_file} has {count}", report.problems)
    result(f"\nready: {_train_command(strategy_file, strategy)}")


def _to_json(report: SetupReport) -> dict[str, Any]:
    """The contract's object."""
    return {
        "ok": report.ok,
        "problems": report.problems,
        "warnings": report.warnings,
        "decisions": report.decisions,
        "forecast": report.forecast,
        "data": report.data,
        "hardware": report.hardware,
    }


def _print(report: SetupReport) -> None:
    """Results on stdout; warnings that no decision has told already, on stderr."""
    blocks = [
        *([decisions_for(sys.stdout, report.decisions)] if report.decisions else []),
        *([aligned(data_facts(report.data))] if report.data else []),
        *([aligned(forecast_facts(report.forecast))] if report.forecast else []),
    ]
    if blocks:
        result("\n\n".join(blocks), wrap=True)
    told = {decision.reason for decision in report.decisions}
    for warning in report.warnings:
        if warning not in told:
            say(f"warning: {warning}")


def _train_command(strategy_file: Path, strategy: str | None) -> str:
    name = f"--strategy {shlex.quote(strategy)} " if strategy else ""
    return f"llamafarm train {name}--strategy-file {shlex.quote(str(strategy_file))}"
