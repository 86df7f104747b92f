"""The tables of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from llamafarm.errors import count_of
from llamafarm.monitoring.comparison import ComparedModel, Comparison, verdict_text
from llamafarm.monitoring.events import EvalEvent
from llamafarm.monitoring.formats import (
    format_bytes,
    format_duration,
    format_perplexity,
    format_rate,
)
from llamafarm.monitoring.history import LossHistory
from llamafarm.monitoring.run_record import RunRecord

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Table:
    """header: one text a column; the first column of a row names it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def results_table(record: RunRecord) -> Table | None:
    """Base, best and last: of the paired comparison, or of the evaluations alone."""
    if record.comparison:
        return _paired(record.comparison)
    return _evaluated(record)


def _paired(comparison: Comparison) -> Table:
    metrics = sorted({name for model in comparison.models for name in model.metrics})
    header = (
        *("", "step", "eval loss", "perplexity", "accuracy"),
        *("change", "95 % interval", "rows", "verdict"),
        *metrics,
    )
    note = f"All on the same {count_of(comparison.rows, 'row')}. {comparison.note}".strip()
    rows = (_paired_row(model, metrics) for model in comparison.models)
    return _without_empty_columns(header, rows, note)


def _paired_row(model: ComparedModel, metrics: Sequence[str]) -> tuple[str, ...]:
    low, high = model.change_low, model.change_high
    rows = ""
    if model.rows_better is not None and model.rows_worse is not None:
        rows = f"{model.rows_better:,} better, {model.rows_worse:,} worse"
        rows += f", {model.rows_same:,} the same" if model.rows_same else ""
    changes = {each.score: verdict_text(each.paired) for each in model.metric_changes}
    return (
        model.name,
        f"{model.step:,}",
        f"{model.eval_loss:.4f}",
        format_perplexity(model.perplexity),
        "" if model.accuracy is None else f"{model.accuracy:.1%}",
        "" if model.change is None else f"{model.change + 0.0:+.4f}",
        "" if low is None or high is None else f"{low + 0.0:+.4f} to {high + 0.0:+.4f}",
        rows,
        model.verdict,
        *(_metric_cell(model.metrics.get(name), changes.get(name, "")) for name in metrics),
    )


def _metric_cell(value: float | None, change: str) -> str:
    """`0.4321 (better)`."""
    if value is None:
        return ""
    return f"{value:.4f} ({change})" if change else f"{value:.4f}"


def _evaluated(record: RunRecord) -> Table | None:
    history = LossHistory.of(record.events)
    base, best, last = history.base, history.best, history.last_evaluation
    found: list[tuple[str, EvalEvent]] = [("base", base)] if base else []
    if best and best is not base:
        found.append(("best" if best is not last else "best, and last", best))
    if last and last not in (best, base):
        found.append(("last", last))
    if not found:
        return None
    metrics = sorted({name for _, event in found for name in event.metrics})
    header = ("", "step", "eval loss", "± standard error", "perplexity", "accuracy", "change")
    rows = [_evaluated_row(name, event, base, metrics) for name, event in found]
    note = f"Measured on {count_of(found[0][1].rows, 'row')}, per trained token."
    return _without_empty_columns((*header, *metrics), rows, note)


def _evaluated_row(
    name: str, event: EvalEvent, base: EvalEvent | None, metrics: Sequence[str]
) -> tuple[str, ...]:
    change = ""
    if base and event is not base and base.eval_loss:
        change = f"{100 * (event.eval_loss / base.eval_loss - 1):+.1f} %"
    return (
        name,
        f"{event.step:,}",
        f"{event.eval_loss:.4f}",
        "" if event.standard_error is None else f"{event.standard_error:.4f}",
        format_perplexity(event.perplexity),
        f"{event.accuracy:.1%}",
        change,
        *(f"{event.metrics[m]:.4f}" if m in event.metrics else "" for m in metrics),
    )


def _without_empty_columns(
    header: Sequence[str], rows: Iterable[Sequence[str]], note: str
) -> Table:
    rows = [tuple(row) for row in rows]
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return Table(
        tuple(header[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows), note
    )


def forecast_table(record: RunRecord) -> Table | None:
    """What was foretold, what came true, and how far off that was."""
    forecast, actual = record.forecast, record.actual
    if forecast is None:
        return None
    speed = actual.tokens_per_second if actual else None
    rows = [
        _row(
            "memory", forecast.memory_bytes, actual.memory_bytes if actual else None, format_bytes
        ),
        _row("time", forecast.seconds, actual.seconds if actual else None, format_duration),
        _row("speed", forecast.tokens_per_second, speed, format_rate),
        _row("tokens", forecast.train_tokens, actual.train_tokens if actual else None, _count),
        _row("disk, at most", forecast.disk_bytes, None, format_bytes),
    ]
    note = f"Time and speed: {forecast.basis}." if forecast.basis else ""
    known = [row for row in rows if row[1] or row[2]]
    return _without_empty_columns(("", "forecast", "fact", "fact against forecast"), known, note)


def _row(
    name: str, forecast: _Number | None, actual: _Number | None, write: Callable[[_Number], str]
) -> tuple[str, str, str, str]:
    """A fact of 0 was not measured."""
    off = f"{100 * (actual / forecast - 1):+.0f} %" if forecast and actual else ""
    return (
        name,
        "" if forecast is None else write(forecast),
        write(actual) if actual else "",
        off,
    )


def _count(count: int) -> str:
    return f"{count:,}"
