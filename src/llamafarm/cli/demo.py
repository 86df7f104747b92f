"""`python demos/demo3_training.py`."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamafarm.cli.display import run_display
from llamafarm.cli.options import overrides_of
from llamafarm.cli.output import result, say
from llamafarm.cli.train import render_run

if TYPE_CHECKING:
    from llamafarm.api import TrainResult
    from llamafarm.data.datasplit import SplitResult
    from llamafarm.demo import Exchange

EXAMPLE = """
python demos/demo3_training.py
DEMO_MODE=automated python demos/demo3_training.py --set max_steps=20
"""
_WIDEST = 110


def command(
    strategy: Annotated[
        str, typer.Option("--strategy", metavar="NAME", help="A strategy of demos/strategies.yaml.")
    ] = "demo3_quick",
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model", metavar="MODEL", help="A larger model: a Hub id or a directory."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Where the run goes.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Any key of the strategy. May be repeated."
        ),
    ] = None,
) -> None:
    """Train a small model on medical questions, and see what it learnt.

    Splits the data, asks the base model three questions, trains, asks again. Everything it writes
    is in fine_tuned_models/, and a second run replaces the first. DEMO_MODE=automated asks nothing.
    """
    from llamafarm.demo import DemoRequest, DemoSteps, run_demo

    started = time.monotonic()
    request = DemoRequest(strategy, base_model, output, overrides_of([], settings or ()))
    say("This is a demonstration of fine-tuning. What the model says is no medical advice.")
    steps = DemoSteps(_tell_split, _tell_before, _ask_to_go_on, _tell_trained)
    with contextlib.closing(run_display()) as display:
        done = run_demo(request, steps, (display,))
    _heading(4, "The same questions again")
    result(render_exchanges(done.exchanges, width=_width()))
    result(
        f"\nThe demo took {time.monotonic() - started:.0f} s. The run is in {done.trained.run_dir}"
    )


def render_exchanges(exchanges: Sequence[Exchange], *, width: int) -> str:
    """Before and after, side by side under each question."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        for exchange in exchanges:
            table = Table(expand=True, title=Text(exchange.question), title_justify="left")
            table.add_column("base model", ratio=1)
            table.add_column("after training", ratio=1)
            table.add_row(Text(exchange.before), Text(exchange.after))
            console.print(table)
            console.print()
    return capture.get().rstrip()


def _heading(number: int, text: str) -> None:
    say(f"\n[{number}/4] {text}\n")


def _tell_split(split: SplitResult) -> None:
    _heading(1, "The data")
    result(f"train  {split.train_rows:>4} rows  {split.train_file}")
    result(f"eval   {split.eval_rows:>4} rows  {split.eval_file}")
    _heading(2, "Three questions to the base model")


def _tell_before(exchanges: Sequence[tuple[str, str]]) -> None:
    for question, answer in exchanges:
        result(f"Q: {question}\nA: {' '.join(answer.split())}\n", wrap=True)


def _ask_to_go_on() -> None:
    _heading(3, "Training")
    if os.environ.get("DEMO_MODE") != "automated" and sys.stdin.isatty():
        typer.confirm("Train now? It takes some minutes.", default=True, abort=True, err=True)


def _tell_trained(trained: TrainResult) -> None:
    result(render_run(trained))


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)
