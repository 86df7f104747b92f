"""`llamafarm datasplit`, and the same as a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llamafarm.cli.facts import aligned
from llamafarm.cli.options import Json, non_negative_number, read_flag, whole_number
from llamafarm.cli.output import result, result_json, say
from llamafarm.errors import count_of

EXAMPLE = """
llamafarm datasplit data.jsonl --eval-percent 10
"""
SCRIPT_EXAMPLE = """
python demos/create_data_split.py --input data.jsonl --eval-percent 10
"""

EvalPercent = Annotated[
    str,
    typer.Option(
        "--eval-percent",
        metavar="P",
        help="Percentage of the rows to evaluate on, or auto: by their number. Left out: 10.",
    ),
]
Seed = Annotated[
    str,
    typer.Option("--seed", metavar="N", help="The same seed, the same split. Left out: 42."),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        "--output-dir", metavar="DIR", help="Where both files go. Left out: beside the input."
    ),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read; count them.")
]


def command(
    input_path: Annotated[
        Path, typer.Argument(metavar="INPUT", help="The file to split.", show_default=False)
    ],
    eval_percent: EvalPercent = "10",
    seed: Seed = "42",
    output_dir: OutputDir = None,
    skip_bad_rows: SkipBadRows = False,
    json_output: Json = False,
) -> None:
    """Split a dataset into a training and an evaluation file.

    Writes STEM_train.jsonl and STEM_eval.jsonl: whole rows, exact counts, equal rows on one side.
    """
    from llamafarm import api

    split = api.datasplit(
        input_path,
        eval_percent=read_flag("--eval-percent", eval_percent, _eval_percent),
        seed=read_flag("--seed", seed, whole_number),
        output_dir=output_dir,
        skip_bad_rows=skip_bad_rows,
    )
    if json_output:
        result_json(split)
        return
    for notice in split.notices:
        say(f"notice: {notice}")
    for warning in split.warnings:
        say(f"warning: {warning}")
    rows = [
        ("train", count_of(split.train_rows, "row"), str(split.train_file)),
        ("eval", count_of(split.eval_rows, "row"), str(split.eval_file)),
    ]
    result(aligned(rows))


def script(
    input_path: Annotated[Path, typer.Option("--input", metavar="FILE", help="The file to split.")],
    eval_percent: EvalPercent = "10",
    seed: Seed = "42",
    output_dir: OutputDir = None,
    skip_bad_rows: SkipBadRows = False,
    json_output: Json = False,
) -> None:
    """Split a dataset into a training and an evaluation file, as llamafarm datasplit does."""
    command(input_path, eval_percent, seed, output_dir, skip_bad_rows, json_output)


def _eval_percent(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return non_negative_number(text.removesuffix("%"))
    except ValueError:
        raise ValueError("expected a percentage, or auto") from None
