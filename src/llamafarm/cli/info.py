"""`llamafarm info`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llamafarm.cli.decisions import decisions_for
from llamafarm.cli.options import Json, StrategyFile
from llamafarm.cli.output import result, result_json, say

EXAMPLE = """
llamafarm info demo3_quick --strategy-file demos/strategies.yaml
"""


def command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Which strategy.", show_default=False)
    ],
    strategy_file: StrategyFile = None,
    json_output: Json = False,
) -> None:
    """Show every value of a strategy and where it comes from."""
    from llamafarm import api

    found = api.info(name, strategy_file)
    if json_output:
        result_json(found)
        return
    for notice in found.notices:
        say(f"notice: {notice}")
    title = f"{found.id}: {found.title}" if found.title else found.id
    head = "\n".join([title, *([found.description] if found.description else [])])
    result(f"{head}\n\n{decisions_for(sys.stdout, found.decisions)}")
