"""`llamafarm doctor`."""

from __future__ import annotations

import typer

from llamafarm.cli.facts import aligned
from llamafarm.cli.options import Json
from llamafarm.cli.output import result, result_json
from llamafarm.errors import EXIT_RUN_FAILED

EXAMPLE = """
llamafarm doctor
"""


def command(json_output: Json = False) -> None:
    """Show versions, devices, and which optional parts are there and how to get the others."""
    from llamafarm import api

    report = api.doctor()
    if json_output:
        result_json(report)
    else:
        rows = [(s.name, s.status, s.detail, s.how_to_get) for s in report.sections]
        result(aligned(rows), wrap=True)
    if any(section.status == "fault" for section in report.sections):
        raise typer.Exit(EXIT_RUN_FAILED)
