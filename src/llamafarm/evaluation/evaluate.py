"""`evaluate`: a finished model on a file of rows, alone, beside its base, and beside others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llamafarm.errors import ModelError, UserError
from llamafarm.evaluation.gguf import find_gguf, measure_gguf, open_gguf
from llamafarm.evaluation.metrics import AnswerMetric
from llamafarm.evaluation.passes import OnRows, Passes
from llamafarm.evaluation.report import (
    ComparedModel,
    EvaluationReport,
    Measured,
    PairedRows,
    compare,
    with_metrics,
)
from llamafarm.evaluation.request import EvaluationTask
from llamafarm.evaluation.trained import LoadModel, measure_trained
from llamafarm.models.llama_cpp import require_llama_cpp
from llamafarm.models.load import find_model_directory

_TUNED, _BASE = "tuned", "base"


def evaluate_source(
    source: str,
    task: EvaluationTask,
    *,
    others: Sequence[str] = (),
    compare_base: bool = False,
    metrics: Sequence[AnswerMetric] = (),
    load: LoadModel,
    threads: int,
    on_rows: OnRows,
) -> EvaluationReport:
    """Scores of the model that `source` names, of its base, and of the others, on the same rows.

    metrics: of the answers, besides those that are always measured. load: from a source to model
    and tokenizer in torch; threads: of llama.cpp, which runs .gguf
    files. on_rows: rows done and rows in all, over every pass. Raises DataError, ModelError, or
    UserError where llama.cpp is needed and not installed.
    """
    _check_sources(source, others, compare_base)
    passes = Passes(on_rows, 1 + compare_base + len(others))

    def measure(
        measured: str, with_base: bool, at_most: int | None
    ) -> tuple[Measured, Measured | None]:
        file = find_gguf(measured)
        base = None
        if file is None:
            tuned, base = measure_trained(
                measured, task, load=load, passes=passes, with_base=with_base, at_most=at_most
            )
        else:
            gguf, on_pass = open_gguf(file), passes.begin()
            tuned = measure_gguf(gguf, task, threads=threads, at_most=at_most, on_rows=on_pass)
        return with_metrics(tuned, metrics), base and with_metrics(base, metrics)

    less_is_better = {each.name for each in metrics if each.greater_is_better is False}
    first, base = measure(source, compare_base, None)
    name, *names = _column_names(source, others)
    warnings = list(first.warnings)
    if base:
        warnings += [f"base: {text}" for text in base.warnings if text not in first.warnings]
    compared = []
    for other_name, other in zip(names, others, strict=True):
        found, _ = measure(other, False, first.max_length)
        paired = compare(first, found, less_is_better=less_is_better)
        compared.append(_compared(other_name, other, found, paired))
        warnings += _differences(name, first, other_name, found)
    return EvaluationReport(
        source=source,
        dataset=str(task.dataset),
        rows=len(first.sources),
        trained_tokens=first.trained_tokens,
        tuned=first.scores,
        base=base.scores if base else None,
        paired=compare(first, base, less_is_better=less_is_better) if base else None,
        name=name,
        compared=tuple(compared),
        warnings=tuple(warnings),
    )


def _check_sources(source: str, others: Sequence[str], compare_base: bool) -> None:
    """What can be wrong with a model further back in the line is said before the first is
    measured.
    """
    counts = Counter(str(Path(each).absolute()) for each in others)
    if twice := next((path for path, count in counts.items() if count > 1), ""):
        raise UserError(f"{twice} is named twice", hint="name every model once after --compare")
    for each in (source, *others):
        file = find_gguf(each)
        if file is not None:
            require_llama_cpp()
            open_gguf(file)
        elif each != source:
            find_model_directory(each)
    if compare_base and find_gguf(source):
        raise ModelError(
            f"{source} holds a finished model: the base it was trained from is not in it",
            hint=f"name the run first: llamafarm evaluate RUN --compare-base --compare {source} …",
        )


def _compared(name: str, source: str, found: Measured, paired: PairedRows) -> ComparedModel:
    return ComparedModel(
        name=name,
        source=source,
        rows=len(found.sources),
        trained_tokens=found.trained_tokens,
        scores=found.scores,
        paired=paired,
    )


def _differences(name: str, first: Measured, other_name: str, other: Measured) -> list[str]:
    """What keeps two columns from being compared number by number."""
    found = [f"{other_name}: {warning}" for warning in other.warnings]
    if set(other.sources) != set(first.sources):
        rows = len(set(other.sources) & set(first.sources))
        found.append(
            f"{other_name} and {name} have {rows:,} measured rows in common, of "
            f"{len(other.sources):,} and {len(first.sources):,}"
        )
    elif other.trained_tokens != first.trained_tokens:
        found.append(
            f"{other_name} reads the answers as {other.trained_tokens:,} tokens, {name} as "
            f"{first.trained_tokens:,}: a loss per token says less about which is better"
        )
    return found


def _column_names(source: str, others: Sequence[str]) -> list[str]:
    """Short names; two that would be the same keep their directory, or all of it."""
    short = [_short_name(each) for each in others]
    first = _short_name(source) if find_gguf(source) else _TUNED
    counts = Counter([first, _BASE, *short])
    names = [name if counts[name] == 1 else each for name, each in zip(short, others, strict=True)]
    counts = Counter([first, _BASE, *names])
    whole = (str(Path(each).absolute()) for each in others)
    return [first, *(n if counts[n] == 1 else w for n, w in zip(names, whole, strict=True))]


def _short_name(source: str) -> str:
    path = Path(source)
    if path.name in ("", "final_model"):
        path = path.absolute().parent if path.name else path.absolute()
    return path.stem if path.suffix.lower() == ".gguf" else path.name
