"""`llamafarm evaluate`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from llamafarm.cli.options import (
    AllowCustomMetrics,
    Json,
    Source,
    positive_whole_number,
    read_flag,
)
from llamafarm.cli.output import result, result_json, say
from llamafarm.cli.scores import render_scores, render_tasks
from llamafarm.cli.usage import problems_error
from llamafarm.errors import Problem
from llamafarm.monitoring.progress import progress_sink

EXAMPLE = """
llamafarm evaluate fine_tuned_models/demo3_quick --dataset medical_qa_eval.jsonl --compare-base
llamafarm evaluate fine_tuned_models/demo3_quick --tasks arc_easy,./my_task.yaml
"""


def command(
    source: Source,
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", metavar="FILE", help="Rows with the right answers."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            metavar="NAMES",
            help="Instead of a dataset: tasks of lm-eval, or task files, e.g. arc_easy,./mine.yaml",
        ),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option("--limit", metavar="N", help="With --tasks: so many rows of each, at most."),
    ] = None,
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
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="A further metric: a function of your own, as package.function. May be repeated.",
        ),
    ] = None,
    allow_custom_metrics: AllowCustomMetrics = False,
    json_output: Json = False,
) -> None:
    """Measure a model on a dataset, alone or against its base.

    Loss and perplexity per answer token, accuracy of the next token; exact match, token F1 and
    ROUGE-L of the answers it writes, and samples of them. Between two models: the change of each
    score on the same rows, its 95 % interval, rows won and lost, and whether it is a difference.
    llama.cpp runs a .gguf file, as it will be served.
    """
    names = None if tasks is None else [n.strip() for n in tasks.split(",") if n.strip()]
    others = {
        "--compare-base": compare_base,
        "--compare": compare,
        "--metric": metric,
        "--allow-custom-metrics": allow_custom_metrics,
    }
    _check_combination(dataset, names, others)
    most = None if limit is None else read_flag("--limit", limit, positive_whole_number)
    if limit is not None and tasks is None:
        raise problems_error([Problem("only works together with --tasks", where="--limit")])
    from llamafarm import api

    if dataset is None:
        done = api.evaluate_tasks(source, names or (), limit=most)
        if json_output:
            result_json(done)
        else:
            result(render_tasks(done))
        return
    with contextlib.closing(progress_sink()) as progress:
        report = api.evaluate(
            source,
            dataset,
            compare_base=compare_base,
            compare=tuple(compare or ()),
            metrics=tuple(metric or ()),
            allow_custom_metrics=allow_custom_metrics,
            sinks=(progress,),
        )
    for warning in report.warnings:
        say(f"warning: {warning}", wrap=True)
    if json_output:
        result_json(report)
    else:
        result(render_scores(report))


def _check_combination(
    dataset: Path | None, tasks: Sequence[str] | None, others: Mapping[str, object]
) -> None:
    """One of both, and nothing that only the other obeys."""
    problems: list[Problem] = []
    if dataset is None and tasks is None:
        message = "is missing: there is nothing to measure on"
        problems.append(Problem(message, where="--dataset", hint="or name --tasks of lm-eval"))
    if dataset is not None and tasks is not None:
        message = "contradicts --dataset: one command measures one of both"
        problems.append(Problem(message, where="--tasks"))
    elif tasks is not None:
        message = "has no effect together with --tasks"
        problems += [Problem(message, where=flag) for flag, value in others.items() if value]
        if not tasks:
            problems.append(Problem("names no task", where="--tasks", hint="e.g. arc_easy"))
    if problems:
        raise problems_error(problems)
