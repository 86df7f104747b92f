"""`llamafarm train`."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamafarm.cli.display import run_display
from llamafarm.cli.options import (
    AllowCustomMetrics,
    AllowLeakage,
    FlagValue,
    Json,
    StrategyFile,
    allowed_leakage,
    overrides_of,
    read_flag,
    row_count,
)
from llamafarm.cli.output import result, result_json, say
from llamafarm.cli.usage import did_you_mean, problems_error
from llamafarm.errors import Problem
from llamafarm.monitoring.console import can_encode
from llamafarm.monitoring.curves import render_curves
from llamafarm.monitoring.history import LossHistory
from llamafarm.monitoring.metrics_file import read_events
from llamafarm.monitoring.screen import SCREEN_CHARACTERS
from llamafarm.monitoring.summary_text import render_summary

if TYPE_CHECKING:
    from llamafarm.api import TrainResult
    from llamafarm.strategy.overrides import Override

EXAMPLE = """
llamafarm train --strategy demo3_quick --strategy-file demos/strategies.yaml \\
  --train-dataset medical_qa_train.jsonl --eval-dataset medical_qa_eval.jsonl
llamafarm train --dataset questions.jsonl --set training_args.max_steps=20
"""
_EXPORTS = ("ollama", "gguf")
_BATCH_SIZE = "training_args.per_device_train_batch_size"
_WIDEST_CURVES = 78


def command(
    context: typer.Context,
    strategy: Annotated[
        str | None, typer.Option("--strategy", metavar="NAME", help="Which strategy of the file.")
    ] = None,
    strategy_file: StrategyFile = None,
    train_dataset: Annotated[
        str | None, typer.Option("--train-dataset", metavar="FILE", help="Rows to train on.")
    ] = None,
    eval_dataset: Annotated[
        str | None, typer.Option("--eval-dataset", metavar="FILE", help="Rows to evaluate on.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="FILE",
            help="One file, split 90/10 into rows to train and to evaluate on; enough on its own.",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            metavar="MODEL",
            help="A Hub id, a directory or a .gguf file. Left out: smollm2-135m-instruct.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="The run directory. Left out: ./fine_tuned_models/<strategy>.",
        ),
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option("--epochs", metavar="N", help="Passes over the training rows."),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option("--batch-size", metavar="N", help="Conversations in a micro-step."),
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option("--learning-rate", metavar="X", help="The highest one of the schedule."),
    ] = None,
    eval_percent: Annotated[
        str | None,
        typer.Option(
            "--eval-percent",
            metavar="P",
            help="Percentage of the rows to evaluate on, or auto, robust (15), research (20).",
        ),
    ] = None,
    allow_leakage: AllowLeakage = False,
    allow_custom_metrics: AllowCustomMetrics = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Any key of the strategy, e.g. training_args.max_steps=20. May be repeated.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the run directory.")
    ] = False,
    resume_anyway: Annotated[
        bool,
        typer.Option(
            "--resume-anyway", help="With --resume: although data or settings have changed."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in the run directory.")
    ] = False,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read; count them."),
    ] = False,
    max_restarts: Annotated[
        str | None,
        typer.Option(
            "--max-restarts",
            metavar="N",
            help="Start again from the last checkpoint when the process is killed or crashes.",
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            "--export",
            metavar="FORMAT",
            help="What to make of the result: ollama or gguf, in DIR/ollama or DIR/gguf.",
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Fine-tune a model, evaluate it, keep the best.

    Reads the strategy, decides every value it leaves out and says why, trains, evaluates before the
    first step, while it trains and at the end, and keeps the best step in DIR/final_model. The same
    checks without training: llamafarm setup.
    """
    _check_combination(resume=resume, resume_anyway=resume_anyway, overwrite=overwrite)
    restarts = read_flag("--max-restarts", max_restarts or "0", row_count)
    from llamafarm import api

    request = api.TrainRequest(
        strategy=strategy,
        strategy_file=strategy_file,
        overrides=overrides_of(
            [
                FlagValue("--dataset", dataset, "dataset.path"),
                FlagValue("--train-dataset", train_dataset, "dataset.train_file"),
                FlagValue("--eval-dataset", eval_dataset, "dataset.eval_file"),
                FlagValue("--base-model", base_model, "base_model.id"),
                FlagValue("--output", output, "training_args.output_dir"),
                FlagValue("--epochs", epochs, "training_args.num_train_epochs"),
                FlagValue("--batch-size", batch_size, _BATCH_SIZE),
                FlagValue("--learning-rate", learning_rate, "training_args.learning_rate"),
                FlagValue("--eval-percent", eval_percent, "dataset.eval_percent"),
                allowed_leakage(allow_leakage),
            ],
            settings or (),
        )
        + _export_override(export),
        resume=resume,
        resume_anyway=resume_anyway,
        overwrite=overwrite,
        skip_bad_rows=skip_bad_rows,
        allow_custom_metrics=allow_custom_metrics,
    )
    if restarts:
        run_dir = api.run_directory_of(request)
        raise typer.Exit(_supervise(context.obj, run_dir, restarts))
    with contextlib.closing(run_display()) as display:
        done = api.train(request, sinks=(display,))
    if json_output:
        made = {} if done.exported is None else {"exported": str(done.exported.file)}
        result_json({**done.summary.to_json(), **made})
    else:
        say("")
        result(render_run(done))


def _supervise(argv: Sequence[str], run_dir: Path, max_restarts: int) -> int:
    from llamafarm.training.run_directory import RunDirectory
    from llamafarm.training.supervise import supervise, without_restarts

    command = [sys.executable, "-m", "llamafarm", "train", *without_restarts(argv)]
    return supervise(command, RunDirectory(run_dir), max_restarts=max_restarts, say=say)


def _export_override(export: str | None) -> tuple[Override, ...]:
    if export is None:
        return ()
    if export not in _EXPORTS:
        message = f'expected one of {", ".join(_EXPORTS)} (got "{export}")'
        hint = did_you_mean(export, _EXPORTS)
        raise problems_error([Problem(message, where="--export", hint=hint)])
    from llamafarm.strategy.overrides import Override

    return (Override(f"export.to_{export}", "true", f"--export {export}"),)


def render_run(done: TrainResult) -> str:
    """How a run ended: verdict, curves, numbers, where everything is, and what was exported."""
    summary = render_summary(done.summary, done.run_dir, curves=_curves(done.run_dir))
    if done.exported is None:
        return summary
    from llamafarm.cli.convert import render_converted

    return f"{summary}\n\n{render_converted(done.exported)}"


def _check_combination(*, resume: bool, resume_anyway: bool, overwrite: bool) -> None:
    """A flag that cannot take effect is an error."""
    problems: list[Problem] = []
    if resume and overwrite:
        message = "contradicts --resume: one goes on with the old run, the other removes it"
        problems.append(Problem(message, where="--overwrite"))
    if resume_anyway and not resume:
        problems.append(Problem("only works together with --resume", where="--resume-anyway"))
    if problems:
        raise problems_error(problems)


def _curves(run_dir: Path) -> str:
    """Both losses of the whole run, resumed parts included; nothing where no events were kept."""
    history = LossHistory.of(read_events(run_dir / "metrics.jsonl"))
    return render_curves(
        history.train_points,
        history.eval_points,
        width=min(shutil.get_terminal_size().columns - 1, _WIDEST_CURVES),
        ascii_only=not can_encode(sys.stdout, SCREEN_CHARACTERS),
    )
