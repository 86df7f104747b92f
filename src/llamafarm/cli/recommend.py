"""`llamafarm recommend`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamafarm.cli.options import (
    AllowLeakage,
    FlagValue,
    Json,
    allowed_leakage,
    overrides_of,
)
from llamafarm.cli.output import result, result_json, say
from llamafarm.cli.usage import did_you_mean, problems_error
from llamafarm.errors import Problem
from llamafarm.monitoring.work import WorkProgress

if TYPE_CHECKING:
    from llamafarm.api import Recommendation, RecommendRequest
    from llamafarm.strategy.overrides import Override

EXAMPLE = """
llamafarm recommend --dataset questions.jsonl > my_strategy.yaml
llamafarm recommend --base-model HuggingFaceTB/SmolLM2-1.7B-Instruct
"""
Dataset = Annotated[
    str | None,
    typer.Option("--dataset", metavar="FILE", help="The rows: to train and to evaluate on."),
]
EvalDataset = Annotated[
    str | None,
    typer.Option("--eval-dataset", metavar="FILE", help="Rows to evaluate on."),
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        "--base-model",
        metavar="MODEL",
        help="A Hub id, a directory or a .gguf file. Left out: smollm2-135m-instruct.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file.")]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="What the strategy is called.")]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read; count them.")
]


def command(
    dataset: Dataset = None,
    eval_dataset: EvalDataset = None,
    base_model: BaseModel = None,
    use: Annotated[
        str | None,
        typer.Option(
            "--use",
            metavar="USE",
            help="How much to evaluate on: standard, robust, research or very-small. Left out: by "
            "the number of rows.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="A key that is settled, e.g. method.type=qlora. May be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write it there. Left out: print it."),
    ] = None,
    overwrite: Overwrite = False,
    name: Name = "recommended",
    skip_bad_rows: SkipBadRows = False,
    allow_leakage: AllowLeakage = False,
    json_output: Json = False,
) -> None:
    """Write the strategy that fits data, model and machine, with its reasons.

    What train decides for a dataset, as a file to read, to change and to train. Without a dataset:
    what the model and the machine decide, and what depends on the rows.
    """
    if overwrite and output is None:
        message = "only works together with --output"
        raise problems_error([Problem(message, where="--overwrite")])
    from llamafarm import api

    flags = flags_of(dataset, eval_dataset, base_model, allow_leakage)
    request = api.RecommendRequest(
        overrides=(*overrides_of(flags, settings or ()), *_share(use)),
        name=name,
        file=output,
        overwrite=overwrite,
        skip_bad_rows=skip_bad_rows,
    )
    recommend_and_tell(request, json_output)


def _share(use: str | None) -> tuple[Override, ...]:
    """`--use` as the share of the rows that it stands for."""
    if use is None:
        return ()
    from llamafarm.planning.tables import SPLIT_ROWS
    from llamafarm.strategy.overrides import Override

    shares = {row.name: row.eval_fraction for row in SPLIT_ROWS}
    if use not in shares:
        message = f'expected one of {", ".join(shares)} (got "{use}")'
        raise problems_error([Problem(message, where="--use", hint=did_you_mean(use, shares))])
    return (Override("dataset.eval_split", shares[use], f"--use {use}"),)


def flags_of(
    dataset: str | None, eval_dataset: str | None, base_model: str | None, allow_leakage: bool
) -> list[FlagValue]:
    """What both `recommend` and `init` start from."""
    return [
        FlagValue("--dataset", dataset, "dataset.path"),
        FlagValue("--eval-dataset", eval_dataset, "dataset.eval_file"),
        FlagValue("--base-model", base_model, "base_model.id"),
        allowed_leakage(allow_leakage),
    ]


def recommend_and_tell(request: RecommendRequest, json_output: bool) -> None:
    """The file on stdout, or where it lies; what a person should not miss on stderr."""
    from llamafarm import api

    with contextlib.closing(WorkProgress(sys.stderr)) as progress:
        made = api.recommend(request, sinks=(progress,))
    if json_output:
        result_json(_to_json(made))
        return
    for warning in made.warnings:
        say(f"warning: {warning}", wrap=True)
    if made.file is None:
        result(made.text.removesuffix("\n"))
        return
    result(f"written: {made.file}")
    result(f"next: llamafarm setup {shlex.quote(str(made.file))} --verify-only")


def _to_json(made: Recommendation) -> dict[str, Any]:
    """Decisions, forecast, data and hardware as `setup` gives them, and the file's text."""
    return {
        "strategy": made.strategy,
        "file": made.file,
        "text": made.text,
        "warnings": made.warnings,
        "decisions": made.decisions,
        "open": made.open,
        "forecast": made.forecast,
        "data": made.data,
        "hardware": made.hardware,
    }
