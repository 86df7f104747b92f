"""Several runs beside each other: what differed, what it did to the result, and whether that is
more than noise. Everything follows from their records and the losses of their evaluation rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llamafarm.data.report import DataReport
from llamafarm.errors import StrategyError, count_of, listed
from llamafarm.evaluation.paired import compare_losses
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.monitoring.comparison import PairedChange
from llamafarm.monitoring.formats import (
    format_bytes,
    format_duration,
    format_gap,
    format_loss,
    format_perplexity,
    format_rate,
)
from llamafarm.monitoring.run_record import RunRecord
from llamafarm.strategy.nodes import MappingNode, Node, SequenceNode, to_plain
from llamafarm.strategy.yaml_reader import parse_yaml

_CONFIG = "components.fine_tuner.config."
# How a run is called, and where it lies: they differ always, and change nothing.
_NAMES_AND_PLACES = frozenset(
    {"name", "title", "description", "training_args.output_dir", "training_args.run_name"}
)
_CONTAINER = "strategies"


@dataclass(frozen=True, slots=True)
class RowsEvaluated:
    """The loss of every evaluation row under the weights that a run kept. sources: `file:line`."""

    sources: tuple[str, ...]
    by_row: RowLosses


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run as it is compared. name: how it is called beside the others; evaluated: None with the
    reason in why_not where the losses of its rows are not there.
    """

    name: str
    record: RunRecord
    evaluated: RowsEvaluated | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same in all runs. group: strategy, data, model, versions or
    machine; values: one a run, as text; empty where it is not there.
    """

    group: str
    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that came of every run. values, texts: one a run; None and empty: not measured;
    changes: against the reference, in percent; None for the reference itself.
    """

    name: str
    values: tuple[float | None, ...]
    texts: tuple[str, ...]
    changes: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class RowByRow:
    """One run against the reference on the same evaluation rows. paired: of the loss per trained
    token; None with the reason in why_not; standard_error: of its change over the rows.
    """

    run: str
    paired: PairedChange | None = None
    standard_error: float | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class RunComparison:
    """reference: the name of the run that the others are compared with, which is the first of
    `runs`; warnings: what the numbers cannot say, and what could not be read.
    """

    runs: tuple[str, ...]
    differences: tuple[Difference, ...]
    measures: tuple[Measure, ...]
    row_by_row: tuple[RowByRow, ...]
    warnings: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The run that the others are compared with."""
        return self.runs[0]


def compare_runs(runs: Sequence[NamedRun]) -> RunComparison:
    """All runs against the first one. Raises ValueError for fewer than two."""
    if len(runs) < 2:
        raise ValueError("there is nothing to compare one run with")
    reference, *others = runs
    return RunComparison(
        runs=tuple(run.name for run in runs),
        differences=tuple(_differences([run.record for run in runs])),
        measures=tuple(_measures([run.record for run in runs])),
        row_by_row=tuple(_row_by_row(run, reference) for run in others),
        warnings=tuple(_warnings(runs)),
    )


def flat_strategy(text: str) -> dict[str, str]:
    """The values of a strategy.yaml by path, as `--set` takes them, without names and places.
    Raises StrategyError when it is not YAML.
    """
    root = parse_yaml(text, "strategy.yaml")
    values: dict[str, str] = {}
    for entry in root if isinstance(root, MappingNode) else ():
        inside = entry.value
        if entry.key == _CONTAINER and isinstance(inside, MappingNode) and inside.entries:
            inside = inside.entries[0].value
        if isinstance(inside, MappingNode):
            values |= _flat(inside, "")
    shorter = {path.removeprefix(_CONFIG): value for path, value in values.items()}
    return {path: value for path, value in shorter.items() if path not in _NAMES_AND_PLACES}


def _flat(node: Node, path: str) -> dict[str, str]:
    if isinstance(node, MappingNode):
        parts = (_flat(e.value, f"{path}.{e.key}" if path else e.key) for e in node)
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(node, SequenceNode):
        return {path: json.dumps(to_plain(node), ensure_ascii=False)}
    is_number = isinstance(node.value, float) and math.isfinite(node.value)
    return {path: f"{node.value:.12g}" if is_number else node.text}


def _differences(records: Sequence[RunRecord]) -> Iterator[Difference]:
    """In groups, in the order of the first run that has it."""
    for group, of_record in _GROUPS.items():
        found = [of_record(record) for record in records]
        names = dict.fromkeys(name for values in found for name in values)
        for name in names:
            values = tuple(run.get(name, "") for run in found)
            if len(set(values)) > 1:
                yield Difference(group, name, values)


def _strategy(record: RunRecord) -> Mapping[str, str]:
    try:
        values = flat_strategy(record.strategy_yaml)
    except StrategyError:  # told with the warnings
        values = {}
    if record.seed is not None:
        values.setdefault("training_args.seed", str(record.seed))
    return values


def _data(record: RunRecord) -> Mapping[str, str]:
    """Of all rows, then of every file that was read."""
    data = record.data
    values = {"tokens and masks": _digest(record.data_fingerprint)}
    if data is None:
        return values
    values["training rows"] = f"{data.train.rows:,}"
    values["evaluation rows"] = f"{data.eval.rows:,}" if data.eval else ""
    values["trained tokens"] = f"{data.train.trained_tokens:,}"
    if data.ledger:
        values["chat template"] = _digest(data.ledger.template_sha256)
    for file in data.files:
        weight = "" if file.weight == 1 else f", weight {file.weight:g}"
        rows = count_of(file.rows, "row")
        values[f"{file.role} file {file.name}"] = f"{rows}{weight}, {_digest(file.sha256)}"
    return values


def _model(record: RunRecord) -> Mapping[str, str]:
    if record.model is None:
        return {}
    return {"base model": record.model.name, "base weights": _digest(record.model.fingerprint)}


def _machine(record: RunRecord) -> Mapping[str, str]:
    values = {"device": record.start.device} if record.start else {}
    hardware = record.hardware
    if hardware is None:
        return values
    cpu = hardware.cpu
    values |= {
        "system": hardware.system,
        "processor": f"{cpu.name}, {cpu.capability}",
        "cores": str(cpu.usable_cores),
        "memory": format_bytes(cpu.memory_total_bytes),
        "Python": hardware.python_version,
    }
    for accelerator in hardware.accelerators:
        size = format_bytes(accelerator.memory_total_bytes)
        values[accelerator.name_in_torch] = f"{accelerator.name}, {size}"
    return values


def _digest(sha256: str) -> str:
    return f"sha256 {sha256[:12]}" if sha256 else ""


_GROUPS: Mapping[str, Callable[[RunRecord], Mapping[str, str]]] = {
    "strategy": _strategy,
    "data": _data,
    "model": _model,
    "versions": lambda record: record.versions,
    "machine": _machine,
}


def _measures(records: Sequence[RunRecord]) -> Iterator[Measure]:
    """Those that at least one run has."""
    summaries = [record.summary for record in records]
    yield from _measured("base eval loss", [s.base_eval_loss for s in summaries], format_loss)
    yield from _measured("eval loss", [s.eval_loss for s in summaries], format_loss)
    yield from _measured("perplexity", [s.perplexity for s in summaries], format_perplexity)
    for name in dict.fromkeys(name for summary in summaries for name in summary.metrics):
        yield from _measured(name, [s.metrics.get(name) for s in summaries], _metric_text)
    yield from _measured("training loss", [s.train_loss for s in summaries], format_loss)
    # It can have either sign: a share of it says nothing.
    yield from _measured("gap", [s.gap for s in summaries], format_gap, changes=False)
    steps = [float(s.best_step) if s.best_step is not None else None for s in summaries]
    yield from _measured("best step", steps, _whole, changes=False)
    yield from _measured("steps", [float(s.steps) for s in summaries], _whole, changes=False)
    yield from _measured("trained tokens", [float(s.trained_tokens) for s in summaries], _whole)
    yield from _measured("speed", [s.tokens_per_second for s in summaries], format_rate)
    memory = [float(s.peak_memory_bytes) or None for s in summaries]
    yield from _measured("peak memory", memory, lambda count: format_bytes(round(count)))
    seconds = [record.seconds or None for record in records]
    yield from _measured("time", seconds, format_duration)


def _measured(
    name: str,
    values: Sequence[float | None],
    write: Callable[[float], str],
    *,
    changes: bool = True,
) -> Iterator[Measure]:
    known = tuple(v if v is not None and math.isfinite(v) else None for v in values)
    if not any(value is not None for value in known):
        return
    first = known[0]
    yield Measure(
        name,
        known,
        tuple("" if value is None else write(value) for value in known),
        (None, *(_percent(value, first) if changes else None for value in known[1:])),
    )


def _percent(value: float | None, reference: float | None) -> float | None:
    return 100 * (value / reference - 1) if value is not None and reference else None


def _metric_text(value: float) -> str:
    return f"{value:.4f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _row_by_row(run: NamedRun, reference: NamedRun) -> RowByRow:
    ours, theirs = run.evaluated, reference.evaluated
    if ours is None or theirs is None:
        lacking = run if ours is None else reference
        why_not = f"{lacking.name}: {lacking.why_not or 'the losses of its rows are not there'}"
        return RowByRow(run.name, why_not=why_not)
    if why_not := _why_not(ours, theirs) or _changed(ours, run.record.data, reference.record.data):
        return RowByRow(run.name, why_not=why_not)
    _, error = ours.by_row.change_from(theirs.by_row)
    return RowByRow(run.name, compare_losses(ours.by_row, theirs.by_row), error)


def _why_not(ours: RowsEvaluated, theirs: RowsEvaluated) -> str:
    """Why the losses of two runs are not of the same rows and tokens; empty where they are."""
    if not ours.sources:
        return "no row was evaluated"
    if ours.sources != theirs.sources:
        both = len(set(ours.sources) & set(theirs.sources))
        counts = f"{len(ours.sources):,} and {len(theirs.sources):,}"
        return f"they were evaluated on other rows: {counts}, {both:,} of them the same"
    if ours.by_row.tokens != theirs.by_row.tokens:
        return (
            "the same rows are other tokens: the tokenizer, the chat template or max_seq_length "
            "differs, so that a loss per token is of something else"
        )
    if not (ours.by_row.is_finite and theirs.by_row.is_finite):
        return "a loss is not a finite number"
    return ""


def _changed(ours: RowsEvaluated, data: DataReport | None, reference: DataReport | None) -> str:
    """Which files with evaluation rows were others in the other run, though their names are the
    same. Where tokens and masks of all rows are the same, nothing changed.
    """
    if data is None or reference is None or data.fingerprint == reference.fingerprint:
        return ""
    names = dict.fromkeys(source.rpartition(":")[0] for source in ours.sources)
    now, before = ({file.name: file.sha256 for file in d.files} for d in (data, reference))
    changed = [name for name in names if now.get(name) != before.get(name)]
    return f"{listed(changed, 3)} changed between the two runs" if changed else ""


def _warnings(runs: Sequence[NamedRun]) -> Iterator[str]:
    for run in runs:
        record = run.record
        if record.status != "completed":
            step = f"at step {record.summary.steps:,}"
            yield f"{run.name} is {record.status or 'of unknown status'}, {step}"
        if not record.strategy_yaml:
            yield f"{run.name} has no strategy.yaml: what differed in it is not known"
        else:
            try:
                flat_strategy(record.strategy_yaml)
            except StrategyError as error:
                yield f"{run.name}: {error.summary}"
        for text in record.unread:
            yield f"{run.name}: {text}"
