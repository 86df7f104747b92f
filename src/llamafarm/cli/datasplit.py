"""`llamafarm datasplit`, and the same as a script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from llamafarm.cli.facts import aligned
from llamafarm.cli.options import (
    Json,
    non_negative_number,
    positive_whole_number,
    read_flag,
    whole_number,
)
from llamafarm.cli.output import result, result_json, say
from llamafarm.errors import count_of

if TYPE_CHECKING:
    from llamafarm.data.datasplit import SplitResult

_Percent = float | Literal["auto", "robust", "research"]
_ROWS_NAMED = 3

EXAMPLE = """
llamafarm datasplit data.jsonl --eval-percent 10
"""
SCRIPT_EXAMPLE = """
python demos/create_data_split.py --input data.jsonl --eval-percent 10
"""

EvalPercent = Annotated[
    str | None,
    typer.Option(
        "--eval-percent",
        metavar="P",
        help=(
            "Percentage of the rows to evaluate on; auto: by their number; robust: 15; "
            "research: 20. Left out: 10."
        ),
    ),
]
EvalRows = Annotated[
    str | None,
    typer.Option("--eval-rows", metavar="N", help="So many rows to evaluate on, instead."),
]
TestPercent = Annotated[
    str | None,
    typer.Option(
        "--test-percent", metavar="P", help="Percentage of the rows for a third file to test on."
    ),
]
TestRows = Annotated[
    str | None,
    typer.Option("--test-rows", metavar="N", help="So many rows to test on, instead."),
]
Stable = Annotated[
    bool,
    typer.Option(
        "--stable",
        help="Decide by content: rows added later move no old one; counts are approximate.",
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option("--group-by", metavar="FIELD", help="Rows with the same value stay on one side."),
]
StratifyBy = Annotated[
    str | None,
    typer.Option("--stratify-by", metavar="FIELD", help="Spread its values evenly over the files."),
]
Seed = Annotated[
    str,
    typer.Option("--seed", metavar="N", help="The same seed, the same split. Left out: 42."),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        "--output-dir", metavar="DIR", help="Where the files go. Left out: beside the input."
    ),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read; count them.")
]


def command(
    input_path: Annotated[
        Path, typer.Argument(metavar="INPUT", help="The file to split.", show_default=False)
    ],
    eval_percent: EvalPercent = None,
    eval_rows: EvalRows = None,
    test_percent: TestPercent = None,
    test_rows: TestRows = None,
    stable: Stable = False,
    group_by: GroupBy = None,
    stratify_by: StratifyBy = None,
    seed: Seed = "42",
    output_dir: OutputDir = None,
    skip_bad_rows: SkipBadRows = False,
    json_output: Json = False,
) -> None:
    """Split a dataset into a training and an evaluation file.

    Writes STEM_train.jsonl and STEM_eval.jsonl, and STEM_test.jsonl where one is asked for: whole
    rows, exact counts; rows that say the same, or nearly so, on one side.
    """
    from llamafarm import api

    split = api.datasplit(
        input_path,
        eval_percent=_percent("--eval-percent", eval_percent),
        eval_rows=_rows("--eval-rows", eval_rows),
        test_percent=_percent("--test-percent", test_percent),
        test_rows=_rows("--test-rows", test_rows),
        stable=stable,
        group_by=group_by,
        stratify_by=stratify_by,
        seed=read_flag("--seed", seed, whole_number),
        output_dir=output_dir,
        skip_bad_rows=skip_bad_rows,
    )
    if json_output:
        result_json(split)
    else:
        _tell(split)


def _tell(split: SplitResult) -> None:
    for notice in split.notices:
        say(f"notice: {notice}")
    for warning in split.warnings:
        say(f"warning: {warning}")
    if split.dropped_rows:
        say(f"left out: {count_of(split.dropped_rows, 'row')}: {_dropped(split)}")
    rows = [
        ("train", count_of(split.train_rows, "row"), str(split.train_file)),
        ("eval", count_of(split.eval_rows, "row"), str(split.eval_file)),
    ]
    if split.test_file is not None:
        rows.append(("test", count_of(split.test_rows, "row"), str(split.test_file)))
    result(aligned(rows))


def _dropped(split: SplitResult) -> str:
    named = [f"{row.source} ({row.reason})" for row in split.dropped[:_ROWS_NAMED]]
    more = split.dropped_rows - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def script(
    input_path: Annotated[Path, typer.Option("--input", metavar="FILE", help="The file to split.")],
    eval_percent: EvalPercent = None,
    eval_rows: EvalRows = None,
    test_percent: TestPercent = None,
    test_rows: TestRows = None,
    stable: Stable = False,
    group_by: GroupBy = None,
    stratify_by: StratifyBy = None,
    seed: Seed = "42",
    output_dir: OutputDir = None,
    skip_bad_rows: SkipBadRows = False,
    json_output: Json = False,
) -> None:
    """Split a dataset into a training and an evaluation file, as llamafarm datasplit does."""
    command(
        input_path,
        eval_percent,
        eval_rows,
        test_percent,
        test_rows,
        stable,
        group_by,
        stratify_by,
        seed,
        output_dir,
        skip_bad_rows,
        json_output,
    )


def _percent(flag: str, text: str | None) -> _Percent | None:
    return None if text is None else read_flag(flag, text, _read_percent)


def _read_percent(text: str) -> _Percent:
    from llamafarm.data.split import PERCENT_WORDS

    word = text.strip().lower()
    if word in PERCENT_WORDS:
        return cast("_Percent", word)
    try:
        number = non_negative_number(word.removesuffix("%"))
        return cast("_Percent", word) if word.endswith("%") and number < 1 else number
    except ValueError:
        raise ValueError(f"expected a percentage, or one of {', '.join(PERCENT_WORDS)}") from None


def _rows(flag: str, text: str | None) -> int | None:
    return None if text is None else read_flag(flag, text, positive_whole_number)
