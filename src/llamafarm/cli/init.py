"""`llamafarm init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamafarm.cli.options import AllowLeakage, Json, overrides_of
from llamafarm.cli.recommend import (
    BaseModel,
    EvalDataset,
    Overwrite,
    SkipBadRows,
    flags_of,
    recommend_and_tell,
)

if TYPE_CHECKING:
    from llamafarm.strategy.overrides import Override

EXAMPLE = """
llamafarm init --dataset questions.jsonl
"""


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write. Left out: strategy.yaml.")
    ] = Path("strategy.yaml"),
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="FILE",
            help="The rows: to train and to evaluate on. Left out: the demo's.",
        ),
    ] = None,
    eval_dataset: EvalDataset = None,
    base_model: BaseModel = None,
    overwrite: Overwrite = False,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What the strategy is called.")
    ] = "my_strategy",
    skip_bad_rows: SkipBadRows = False,
    allow_leakage: AllowLeakage = False,
    json_output: Json = False,
) -> None:
    """Write a first strategy that explains itself.

    The values that are worth changing, as recommend has them for this data, model and machine, each
    with its reason and the direction in which to change it; train decides the others. Without a
    dataset it is written for the demo's.
    """
    from llamafarm import api

    flags = flags_of(dataset, eval_dataset, base_model, allow_leakage)
    request = api.RecommendRequest(
        overrides=(
            *overrides_of(flags, ()),
            *(() if dataset is not None else _demo_rows(api.DEMO_ROWS)),
        ),
        name=name,
        file=file,
        overwrite=overwrite,
        skip_bad_rows=skip_bad_rows,
        for_beginners=True,
    )
    recommend_and_tell(request, json_output)


def _demo_rows(file: str) -> tuple[Override, ...]:
    from llamafarm.strategy.overrides import Override

    return (Override("dataset.path", file, "until you name rows of your own"),)
