"""`llamafarm list-strategies`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamafarm.cli.facts import aligned
from llamafarm.cli.options import Json, StrategyFile
from llamafarm.cli.output import result, result_json
from llamafarm.errors import StrategyError, count_of

if TYPE_CHECKING:
    from llamafarm.strategy.loader import StrategyEntry

EXAMPLE = """
llamafarm list-strategies --strategy-file demos/strategies.yaml
"""


def command(strategy_file: StrategyFile = None, json_output: Json = False) -> None:
    """List the strategies of a file."""
    from llamafarm import api

    found = api.list_strategies(strategy_file)
    if json_output:
        result_json({"path": found.path, "strategies": found.entries, "problems": found.problems})
    else:
        result("\n".join([str(found.path), *([_table(found.entries)] if found.entries else [])]))
    if found.problems:
        count = count_of(len(found.problems), "problem")
        raise StrategyError(f"{found.path} has {count}", found.problems)


def _table(entries: Sequence[StrategyEntry]) -> str:
    rows = [
        (entry.id, entry.backend or "not trainable", entry.title or entry.description)
        for entry in entries
    ]
    return aligned(rows)
