"""`llamafarm compare-backends`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamafarm.cli.facts import aligned
from llamafarm.cli.options import FlagValue, Json, StrategyFile, overrides_of
from llamafarm.cli.output import result, result_json
from llamafarm.errors import EXIT_GATE, GateRefused, count_of
from llamafarm.monitoring.work import WorkProgress

if TYPE_CHECKING:
    from llamafarm.api import BackendComparison

EXAMPLE = """
llamafarm compare-backends demo3_quick --strategy-file demos/strategies.yaml
"""


def command(
    strategy: Annotated[
        str,
        typer.Argument(
            metavar="STRATEGY", help="A strategy by name, or a file of one.", show_default=False
        ),
    ],
    strategy_file: StrategyFile = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="FILE", help="Compare on these rows instead."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="A key of the strategy, changed."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Ask both fine-tuners what they would do with a strategy, and compare.

    Tokens and labels of the rows, rows in a step, learning rates, trained parameters, and the loss
    before the first step: PyTorch against LLaMA-Factory. Nothing is trained. Exit code 3 where
    something differs.
    """
    from llamafarm import api

    name: str | None = strategy
    if strategy_file is None and Path(strategy).is_file():
        name, strategy_file = None, Path(strategy)
    flags = [FlagValue("--dataset", dataset, "dataset.path")]
    with contextlib.closing(WorkProgress(sys.stderr)) as progress:
        found = api.compare_backends(
            name, strategy_file, overrides=overrides_of(flags, settings or ()), sinks=(progress,)
        )
    if json_output:
        result_json(found)
        raise typer.Exit(0 if found.same else EXIT_GATE)
    _print(found)
    if not found.same:
        different = [row.name for row in found.rows if not row.same]
        raise GateRefused(
            f"the fine-tuners differ in {count_of(len(different), 'thing')}: {', '.join(different)}"
        )
    result(f"\nboth would train the same (LLaMA-Factory {found.version})")


def _print(found: BackendComparison) -> None:
    for row in found.rows:
        mark = "same" if row.same else "DIFFERS"
        both = [("PyTorch", row.pytorch), ("LLaMA-Factory", row.llamafactory)]
        note = [("", row.note)] if row.note else []
        result(f"{row.name}: {mark}")
        if not row.same or row.pytorch != row.llamafactory or note:
            result("\n".join(f"  {line}" for line in aligned([*both, *note]).splitlines()))
        else:
            result(f"  {row.pytorch}")
