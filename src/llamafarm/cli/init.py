"""`llamafarm init`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from llamafarm.cli.options import FlagValue, Json, overrides_of
from llamafarm.cli.output import result_json
from llamafarm.cli.recommend import (
    BaseModel,
    EvalDataset,
    Overwrite,
    SkipBadRows,
    tell,
    to_json,
)
from llamafarm.monitoring.work import WorkProgress

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
    json_output: Json = False,
) -> None:
    """Write a first strategy for data, model and machine, with what each value is for.

    The values that are worth changing, each with its reason and the direction in which to change
    it; train decides the others. Without a dataset it is written for the demo's.
    """
    from llamafarm import api

    rows = "--dataset" if dataset else "the demo's rows until you name yours"
    request = api.RecommendRequest(
        overrides=overrides_of(
            [
                FlagValue(rows, dataset or api.DEMO_ROWS, "dataset.path"),
                FlagValue("--eval-dataset", eval_dataset, "dataset.eval_file"),
                FlagValue("--base-model", base_model, "base_model.id"),
            ],
            (),
        ),
        name=name,
        file=file,
        overwrite=overwrite,
        skip_bad_rows=skip_bad_rows,
        for_beginners=True,
    )
    with contextlib.closing(WorkProgress(sys.stderr)) as progress:
        made = api.recommend(request, sinks=(progress,))
    if json_output:
        result_json(to_json(made))
    else:
        tell(made)
