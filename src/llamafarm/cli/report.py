"""`llamafarm report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llamafarm.cli.options import Json
from llamafarm.cli.output import result, result_json, say

EXAMPLE = """
llamafarm report fine_tuned_models/demo3_quick --open
"""


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The run directory that train wrote.", show_default=False
        ),
    ],
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the web browser.")] = False,
    json_output: Json = False,
) -> None:
    """Write the HTML report of a run again.

    report.html and plots/ in the run directory, from what the run has recorded: also of one that
    is still going on, or that was stopped. The page is one file, loads nothing and sends nothing.
    """
    from llamafarm import api

    written = api.report(run)
    for text in written.unread:
        say(f"warning: {text}")
    if json_output:
        result_json({"report": written.page, "plots": written.pictures})
    else:
        result(str(written.page))
    if open_page:
        import webbrowser

        webbrowser.open(written.page.absolute().as_uri())
