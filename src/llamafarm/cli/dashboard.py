"""`llamafarm dashboard`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from llamafarm.cli.options import read_flag, whole_number
from llamafarm.cli.output import flush_result, result, say

EXAMPLE = """
llamafarm dashboard
llamafarm dashboard fine_tuned_models --port 8765 --no-browser
"""
_LAST_PORT = 65_535


def command(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIRECTORY",
            help="Where the runs are; left out: fine_tuned_models.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        str, typer.Option("--port", metavar="N", help="0, as left out: any that is free.")
    ] = "0",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and open nothing.")
    ] = False,
) -> None:
    """Show the runs of a directory in a browser, live, until Ctrl-C.

    Served on this machine only, for whoever has the address that is printed; it changes nothing.
    """
    from llamafarm import api

    number = read_flag("--port", port, _port)
    api.dashboard(
        directory,
        port=number,
        on_ready=lambda address: _ready(address, opens=not no_browser),
        on_defect=_tell_defect,
    )


def _port(text: str) -> int:
    value = whole_number(text)
    if not 0 <= value <= _LAST_PORT:
        raise ValueError(f"expected a port from 0 to {_LAST_PORT}")
    return value


def _ready(address: str, *, opens: bool) -> None:
    result(address)
    flush_result()
    say("Ctrl-C ends it")
    if opens:
        import webbrowser

        webbrowser.open(address)


def _tell_defect(error: Exception) -> None:
    """The server goes on with the next request."""
    from llamafarm.cli.defects import defect_message, log_defect

    say(defect_message(error, log_defect(error, sys.argv)))
