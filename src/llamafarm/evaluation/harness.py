"""A finished model on the tasks of lm-evaluation-harness, the optional part `lm-eval`.

Names are those of its registry, or paths of task files; what they mean is its business.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import LlamafarmError, ModelError, Problem, RunError, UserError, count_of
from llamafarm.evaluation.gguf import find_gguf
from llamafarm.evaluation.trained import LoadModel

_INSTALL = "install it with `pip install 'llamafarm[lm-eval]'`"
_BATCH_SIZE = 4
_ERROR_OF = "_stderr"


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One number of one task. metric: with the filter of the answers where there is one;
    standard_error: None where the harness gives none; rows: None where it does not say.
    """

    task: str
    metric: str
    value: float
    standard_error: float | None
    rows: int | None
    higher_is_better: bool | None


@dataclass(frozen=True, slots=True)
class TasksReport:
    """What `evaluate --tasks` answers. version: of the harness, whose numbers these are."""

    source: str
    tasks: tuple[str, ...]
    scores: tuple[TaskScore, ...]
    version: str


def require_harness() -> None:
    """Raises UserError where it is not installed."""
    try:
        importlib.import_module("lm_eval")
    except ImportError as error:
        raise UserError(f"--tasks needs the package lm-eval ({error})", hint=_INSTALL) from error


def evaluate_tasks(
    source: str, tasks: Sequence[str], *, load: LoadModel, limit: int | None = None
) -> TasksReport:
    """Run the tasks on the model that `source` names. load: to model and tokenizer; limit: rows of
    each task, the first ones.

    Raises UserError where the harness is not there, or does not have a task; RunError where it
    fails.
    """
    require_harness()
    if find_gguf(source):
        raise ModelError(
            f"{source}: tasks are run in transformers, which does not read this file",
            hint="name the run it was made from, or the model directory",
        )
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    specs = _specs(tasks, manager)
    model, tokenizer = load(source)
    try:
        found = _run(model, tokenizer, specs, manager, limit)
    except LlamafarmError:
        raise
    except Exception as error:  # a task is code of its own, and may fail with anything
        why = " ".join(str(error).split())[:300]
        raise RunError(
            f"lm-eval failed: {type(error).__name__}: {why}",
            hint="a task reads its data from the Hub unless its file names local ones",
        ) from error
    return TasksReport(source, tuple(tasks), _scores(found), str(lm_eval.__version__))


def _specs(tasks: Sequence[str], manager: Any) -> list[str]:
    """As the manager takes them. Raises UserError with every task that is not there."""
    specs: list[str] = []
    problems: list[Problem] = []
    for task in tasks:
        if task.endswith((".yaml", ".yml")):
            specs.append(str(Path(task).expanduser().absolute()))
            if not Path(specs[-1]).is_file():
                problems.append(Problem(f"{task} is no file", where="--tasks"))
        elif matches := manager.match_tasks([task]):
            specs += matches
        else:
            near = difflib.get_close_matches(task, manager.all_tasks, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "lm-eval ls tasks lists them"
            problems.append(Problem(f"lm-eval has no task {task}", where="--tasks", hint=hint))
    if problems:
        raise UserError(f"{count_of(len(problems), 'task')} cannot be run", problems)
    return specs


def _run(
    model: Any, tokenizer: Any, specs: Sequence[str], manager: Any, limit: int | None
) -> Mapping[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    # The adapters of a PEFT model sit inside its base model.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    found: Mapping[str, Any] = simple_evaluate(
        model=HFLM(pretrained=inner, tokenizer=tokenizer, batch_size=_BATCH_SIZE),
        tasks=list(specs),
        task_manager=manager,
        limit=limit,
        log_samples=False,
    )
    return found


def _scores(found: Mapping[str, Any]) -> tuple[TaskScore, ...]:
    """`acc,none` with `acc_stderr,none` beside it."""
    scores: list[TaskScore] = []
    for task, values in found["results"].items():
        rows = found.get("n-samples", {}).get(task, {}).get("effective")
        directions = found.get("higher_is_better", {}).get(task, {})
        for key, value in values.items():
            metric, _, filter_name = key.partition(",")
            if not filter_name or metric.endswith(_ERROR_OF) or isinstance(value, str):
                continue
            error = values.get(f"{metric}{_ERROR_OF},{filter_name}")
            name = metric if filter_name == "none" else f"{metric} ({filter_name})"
            scores.append(
                TaskScore(
                    task,
                    name,
                    float(value),
                    float(error) if isinstance(error, int | float) else None,
                    rows,
                    directions.get(metric),
                )
            )
    return tuple(scores)
