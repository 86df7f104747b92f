"""`llamafarm evaluate`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from llamafarm.cli.options import Json, Source
from llamafarm.cli.output import result, result_json, say
from llamafarm.cli.scores import render_scores
from llamafarm.monitoring.progress import progress_sink

EXAMPLE = """
llamafarm evaluate fine_tuned_models/demo3_quick --dataset medical_qa_eval.jsonl --compare-base
"""


def command(
    source: Source,
    dataset: Annotated[
        Path, typer.Option("--dataset", metavar="FILE", help="Rows with the right answers.")
    ],
    compare_base: Annotated[
        bool, typer.Option("--compare-base", help="Measure the base model on the same rows too.")
    ] = False,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="SOURCE",
            help="Measure this model on the same rows too, e.g. a .gguf file. May be repeated.",
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Measure a model on a dataset, alone or against its base.

    Loss and perplexity per answer token, accuracy of the next token, exact match and ROUGE-L of
    the answers it writes, and samples of them. llama.cpp runs a .gguf file, as it will be served.
    """
    from llamafarm import api

    with contextlib.closing(progress_sink()) as progress:
        report = api.evaluate(
            source,
            dataset,
            compare_base=compare_base,
            compare=tuple(compare or ()),
            sinks=(progress,),
        )
    for warning in report.warnings:
        say(f"warning: {warning}", wrap=True)
    if json_output:
        result_json(report)
    else:
        result(render_scores(report))
