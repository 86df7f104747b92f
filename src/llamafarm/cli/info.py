"""`llamafarm info`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llamafarm.cli.decisions import decisions_for
from llamafarm.cli.facts import aligned
from llamafarm.cli.options import FlagValue, Json, StrategyFile, overrides_of
from llamafarm.cli.output import result, result_json, say
from llamafarm.monitoring.work import WorkProgress

if TYPE_CHECKING:
    from llamafarm.api import FieldInfo, StrategyInfo
    from llamafarm.errors import Problem

EXAMPLE = """
llamafarm info demo3_quick --strategy-file demos/strategies.yaml
llamafarm info demo3_quick --strategy-file demos/strategies.yaml --field learning_rate
"""


def command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Which strategy.", show_default=False)
    ],
    strategy_file: StrategyFile = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="FILE", help="Decide for these rows instead."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="MODEL", help="Decide for this model instead."),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(
            "--field", metavar="PATH", help="One value: what it means, what is allowed, its table."
        ),
    ] = None,
    no_resolve: Annotated[
        bool,
        typer.Option("--no-resolve", help="Only what the file says: read no rows and no model."),
    ] = False,
    json_output: Json = False,
) -> None:
    """Show every value of a strategy, where it comes from, and why.

    Each value as train would decide it for these rows, this model and this machine: written in the
    file, given as a flag, from a table, detected, or a default. Downloads nothing; what cannot be
    decided is named, and stays as the file has it.
    """
    from llamafarm import api

    flags = [
        FlagValue("--dataset", dataset, "dataset.path"),
        FlagValue("--base-model", base_model, "base_model.id"),
    ]
    with contextlib.closing(WorkProgress(sys.stderr)) as progress:
        found = api.info(
            name,
            strategy_file,
            overrides=overrides_of(flags, ()),
            resolved=not no_resolve,
            sinks=(progress,),
        )
    shown = found if field is None else api.explain_field(found, field)
    if json_output:
        result_json(shown)
        return
    if field is None:
        for notice in found.notices:
            say(f"notice: {notice}")
        result(_overview(found))
    else:
        result(_one(api.explain_field(found, field)), wrap=True)
    if found.unknown:
        result(
            "\n" + aligned([("not known", _text(problem)) for problem in found.unknown]), wrap=True
        )


def _overview(found: StrategyInfo) -> str:
    head = [f"{found.id}: {found.title}" if found.title else found.id]
    head += [found.description] if found.description else []
    head += [str(found.file)] if found.file else []
    return "\n".join([*head, "", decisions_for(sys.stdout, found.decisions)])


def _one(found: FieldInfo) -> str:
    """A value as lines of label and text."""
    rows = [("field", found.path)]
    if found.decision is not None:
        rows += [("value", found.decision.value), ("origin", found.decision.source)]
        rows += [("reason", found.decision.reason)] if found.decision.reason else []
    rows += [(remark.source, remark.reason) for remark in found.remarks]
    rows += [("meaning", found.meaning), ("allowed", found.allowed), ("left out", found.left_out)]
    rows += [("table" if i == 0 else "", f"{a}: {b}") for i, (a, b) in enumerate(found.table)]
    return aligned(rows)


def _text(problem: Problem) -> str:
    parts = (problem.where, problem.path and f"{problem.path}:", problem.message)
    hint = f" (hint: {problem.hint})" if problem.hint else ""
    return " ".join(part for part in parts if part) + hint
