"""`llamafarm prepare`, and the same as a script."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamafarm.cli.facts import aligned
from llamafarm.cli.options import Json, positive_whole_number, read_flag
from llamafarm.cli.output import result, result_json, say
from llamafarm.cli.usage import did_you_mean, problems_error
from llamafarm.data.documents.request import (
    DEFAULT_MAX_CHARS,
    DEFAULT_MIN_CHARS,
    ROW_SHAPES,
    PrepareRequest,
    RowShape,
)
from llamafarm.errors import Problem, UserError, count_of
from llamafarm.monitoring.work import WorkProgress

if TYPE_CHECKING:
    from llamafarm.data.documents.report import FileReport, PrepareReport, Tally

EXAMPLE = """
llamafarm prepare handbook.pdf faq.md --output data.jsonl
llamafarm prepare raw/ --output data.jsonl --format messages
"""
SCRIPT_EXAMPLE = """
python prepare_data.py --input raw_data.txt --output data.jsonl
"""
_PLACES_SHOWN = 20
_CHANGES_SHOWN = 3
_FILES_SHOWN = 20

Output = Annotated[
    Path,
    typer.Option("--output", metavar="FILE", help="The JSONL file to write; whole or not at all."),
]
Input = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        metavar="PATH",
        help="A file, or a directory with all that lies in it; may be repeated.",
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Of rows with one answer: alpaca or messages. Left out: alpaca. Longer dialogues "
        "become messages, text without a question becomes text.",
    ),
]
MinChars = Annotated[
    str,
    typer.Option(
        "--min-chars",
        metavar="N",
        help=f"Drop rows with fewer characters. Left out: {DEFAULT_MIN_CHARS}.",
    ),
]
MaxChars = Annotated[
    str,
    typer.Option(
        "--max-chars",
        metavar="N",
        help=f"Drop rows with more characters. Left out: {DEFAULT_MAX_CHARS}.",
    ),
]
KeepDuplicates = Annotated[
    bool,
    typer.Option("--keep-duplicates", help="Keep rows that say the same as others, or nearly so."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output file where there is one.")
]


def command(
    output: Output,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT",
            help="Files or directories: .txt, .md, .html, .docx, .pdf, .csv, .tsv, .json, .jsonl, "
            ".parquet.",
            show_default=False,
        ),
    ] = None,
    input_paths: Input = None,
    row_format: Format = ROW_SHAPES[0],
    min_chars: MinChars = str(DEFAULT_MIN_CHARS),
    max_chars: MaxChars = str(DEFAULT_MAX_CHARS),
    keep_duplicates: KeepDuplicates = False,
    overwrite: Overwrite = False,
    json_output: Json = False,
) -> None:
    """Turn raw files into clean training rows.

    Finds questions with answers, dialogues, tables, sections and paragraphs; repairs encodings and
    characters; drops rows that repeat others. What is changed and dropped is counted, and listed
    with its place.
    """
    from llamafarm import api

    paths = (*(inputs or ()), *(input_paths or ()))
    if not paths:
        raise UserError("nothing says what to prepare", hint="name a file with --input FILE")
    request = PrepareRequest(
        inputs=paths,
        output=output,
        row_shape=_row_shape(row_format),
        min_chars=read_flag("--min-chars", min_chars, positive_whole_number),
        max_chars=read_flag("--max-chars", max_chars, positive_whole_number),
        keep_duplicates=keep_duplicates,
        overwrite=overwrite,
    )
    with contextlib.closing(WorkProgress(sys.stderr)) as progress:
        report = api.prepare_data(request, [progress])
    if json_output:
        result_json(report)
    else:
        for notice in report.notices:
            say(f"notice: {notice}", wrap=True)
        result(report_text(report), wrap=True)


def script(
    output: Output,
    input_paths: Input = None,
    row_format: Format = ROW_SHAPES[0],
    min_chars: MinChars = str(DEFAULT_MIN_CHARS),
    max_chars: MaxChars = str(DEFAULT_MAX_CHARS),
    keep_duplicates: KeepDuplicates = False,
    overwrite: Overwrite = False,
    json_output: Json = False,
) -> None:
    """Turn raw files into clean training rows, as llamafarm prepare does."""
    command(
        output,
        None,
        input_paths,
        row_format,
        min_chars,
        max_chars,
        keep_duplicates,
        overwrite,
        json_output,
    )


def _row_shape(text: str) -> RowShape:
    for shape in ROW_SHAPES:
        if text == shape:
            return shape
    message = f'expected one of {", ".join(ROW_SHAPES)} (got "{text}")'
    raise problems_error(
        [Problem(message, where="--format", hint=did_you_mean(text.lower(), ROW_SHAPES))]
    )


def report_text(report: PrepareReport) -> str:
    """What was read, changed, dropped and written, in aligned lines."""
    read = [("" if i else "read", *_file(f)) for i, f in enumerate(report.files[:_FILES_SHOWN])]
    if len(report.files) > _FILES_SHOWN:
        read.append(("", "and " + count_of(len(report.files) - _FILES_SHOWN, "more file")))
    shapes = ", ".join(f"{count:,} {shape}" for shape, count in report.shapes.items())
    sections = [aligned(read)]
    sections += _changed(report.changed)
    sections += _dropped(report.dropped)
    sections.append(
        aligned(
            [
                ("rows", f"{report.rows:,} of {report.found:,} kept: {shapes}"),
                ("written", str(report.output)),
            ]
        )
    )
    return "\n".join(sections)


def _file(file: FileReport) -> tuple[str, ...]:
    recognised = ", ".join(_counted(count, kind) for kind, count in file.recognised.items())
    form = f"{file.kind}, {file.encoding}" if file.encoding else file.kind
    return file.name, form, recognised or "nothing found"


def _counted(number: int, kind: str) -> str:
    """`2 questions with answer`: the first word of a kind is what is counted."""
    first, _, rest = kind.partition(" with ")
    return count_of(number, first) + (f" with {rest}" if rest else "")


def _changed(tallies: Sequence[Tally]) -> list[str]:
    """One line for each, with the first places."""
    rows = [
        ("" if i else "changed", f"{tally.count:,}", f"{tally.what}: {_first_places(tally)}")
        for i, tally in enumerate(tallies)
    ]
    return [aligned(rows)] if rows else []


def _first_places(tally: Tally) -> str:
    places = ", ".join(place.where for place in tally.first[:_CHANGES_SHOWN])
    more = tally.count - _CHANGES_SHOWN
    return f"{places} and {more:,} more" if more > 0 else places


def _dropped(tallies: Sequence[Tally]) -> list[str]:
    """Every reason with its count; the first places under it, a line each."""
    rows: list[tuple[str, ...]] = []
    for tally, shown in zip(tallies, _shown(tallies), strict=True):
        rows.append(("" if rows else "dropped", f"{tally.count:,}", tally.what))
        rows += [
            ("", "", f"  {place.where}" + (f": {place.detail}" if place.detail else ""))
            for place in tally.first[:shown]
        ]
        if tally.count > shown:
            rows.append(("", "", f"  and {tally.count - shown:,} more"))
    return [aligned(rows)] if rows else []


def _shown(tallies: Sequence[Tally]) -> list[int]:
    """How many places of each are shown, 20 in all: shared out evenly, what one leaves over goes
    to the next.
    """
    shown = [0] * len(tallies)
    left = _PLACES_SHOWN
    while left > 0:
        wanting = [i for i, tally in enumerate(tallies) if shown[i] < len(tally.first)]
        if not wanting:
            break
        for i in wanting[:left]:
            shown[i] += 1
        left -= len(wanting)
    return shown
