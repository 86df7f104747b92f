"""The numbers of a finished run: `summary.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from llamafarm.errors import OutputError
from llamafarm.monitoring.comparison import PairedChange
from llamafarm.monitoring.events import (
    BestLostEvent,
    EndEvent,
    Event,
    FindingEvent,
    NonFiniteEvent,
    OutOfMemoryEvent,
    SaveFailedEvent,
    StepEvent,
)
from llamafarm.monitoring.history import LossHistory
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.lines import trouble_text

_LARGEST_LOSS = 700.0
_MOST_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a run, or went wrong on the way and what became of it. rule: its short
    name; patch: values to try, by their path in a strategy file's `config`; rows: `file:line`.
    """

    rule: str
    step: int
    text: str
    confidence: float = 1.0
    numbers: Mapping[str, float] = field(default_factory=dict)
    advice: str = ""
    patch: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    rows: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: object) -> Finding:
        """An object of this version or a later one, or the bare text of an earlier one."""
        if not isinstance(value, Mapping):
            return cls("", 0, str(value))
        given = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        numbers = {k: math.nan if v is None else v for k, v in given.get("numbers", {}).items()}
        rest = {"numbers": numbers, "rows": tuple(given.get("rows", ()))}
        return cls(**{"rule": "", "step": 0, "text": "", **given, **rest})


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What `summary.json` holds. None: not measured in this run. findings: what was found about the
    run, and what went wrong on the way; in order.

    eval_loss, perplexity, train_loss: of the step whose weights are in `final_model`, so that
    eval_loss - train_loss is the gap. train_loss: per trained token over the steps since the
    evaluation before that step; over the whole run without evaluations. best_metric: value of
    `metric_for_best_model` at best_step. train_tokens: tokens read, prompts included;
    trained_tokens: those with a label. tokens_per_second: train_tokens over the time spent in
    steps. against_base: eval_loss of the kept model minus the base's, on the same rows;
    last_against_best: of the last step minus the best one's; metrics, base_metrics: those that
    were asked for besides, of the kept model and of the base.
    """

    status: str
    steps: int
    train_loss: float | None
    eval_loss: float | None
    base_eval_loss: float | None
    perplexity: float | None
    best_step: int | None
    best_metric: float | None
    train_tokens: int
    trained_tokens: int
    tokens_per_second: float | None
    runtime_seconds: float
    peak_memory_bytes: int
    findings: tuple[Finding, ...] = ()
    against_base: PairedChange | None = None
    last_against_best: PairedChange | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    base_metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float | None:
        """Eval loss minus training loss."""
        if self.eval_loss is None or self.train_loss is None:
            return None
        return self.eval_loss - self.train_loss

    def to_json(self) -> dict[str, Any]:
        """The object of `summary.json`; a non-finite number is null."""
        value: dict[str, Any] = to_jsonable(self)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunSummary:
        """Raises OutputError when fields are missing; fields of a later version are left out."""
        names = [f.name for f in fields(cls)]
        required = (f.name for f in fields(cls) if f.default is f.default_factory is MISSING)
        if missing := [name for name in required if name not in value]:
            raise OutputError(f"the summary of the run lacks {', '.join(missing)}")
        given = {name: value[name] for name in names if name in value}
        findings = tuple(Finding.from_json(item) for item in value.get("findings", ()))
        paired = {n: _paired(value.get(n)) for n in ("against_base", "last_against_best")}
        return cls(**{**given, "findings": findings, **paired})


def _paired(value: object) -> PairedChange | None:
    if not isinstance(value, Mapping):
        return None
    return PairedChange(**{f.name: value[f.name] for f in fields(PairedChange) if f.name in value})


def summarise(
    events: Iterable[Event], *, metric: str = "eval_loss", load_best: bool = True
) -> RunSummary:
    """Sum a run up. metric: metric_for_best_model; load_best False: the last step is kept."""
    events = tuple(events)
    history = LossHistory.of(events)
    end = next((e for e in reversed(events) if isinstance(e, EndEvent)), None)
    last = history.steps[-1] if history.steps else None
    best = history.best
    kept = (best if load_best else None) or history.last_evaluation
    told = [event for event in (end, last) if event is not None]
    steps = end.step if end else (last.step if last else 0)
    return RunSummary(
        status=end.status if end else "running",
        steps=steps,
        train_loss=history.train_loss_at(kept.step if kept else steps),
        eval_loss=kept.eval_loss if kept else None,
        base_eval_loss=history.base.eval_loss if history.base else None,
        perplexity=kept.perplexity if kept else None,
        best_step=best.step if best else None,
        best_metric=best.value_of(metric) if best else None,
        train_tokens=max(e.tokens for e in told) if told else 0,
        trained_tokens=max(e.trained_tokens for e in told) if told else 0,
        tokens_per_second=_tokens_per_second(history.steps),
        runtime_seconds=end.seconds if end else 0.0,
        peak_memory_bytes=_peak_memory_bytes(events),
        findings=_findings(events),
        metrics=dict(kept.metrics) if kept else {},
        base_metrics=dict(history.base.metrics) if history.base else {},
    )


def perplexity_of(loss: float) -> float:
    """exp(loss), for a loss in nats per token; infinite where a float cannot hold it."""
    return math.exp(loss) if loss < _LARGEST_LOSS else math.inf


def _tokens_per_second(steps: Sequence[StepEvent]) -> float | None:
    """All tokens over the time their steps took: the harmonic mean of the speeds, by tokens."""
    tokens, seconds, seen = 0, 0.0, 0
    for event in steps:
        new_tokens, seen = event.tokens - seen, event.tokens
        if event.tokens_per_second > 0:
            tokens += new_tokens
            seconds += new_tokens / event.tokens_per_second
    return tokens / seconds if seconds > 0 else None


def _findings(events: Iterable[Event]) -> tuple[Finding, ...]:
    """In order; of very many only the first, and the first of every kind."""
    kept: list[Finding] = []
    kinds: set[str] = set()
    left_out = 0
    for event in events:
        finding = _finding(event)
        if finding is None:
            continue
        if len(kept) < _MOST_FINDINGS or finding.rule not in kinds:
            kept.append(finding)
        else:
            left_out += 1
        kinds.add(finding.rule)
    more = Finding("more", 0, f"and {left_out:,} more in metrics.jsonl")
    return (*kept, *([more] if left_out else []))


def _finding(event: Event) -> Finding | None:
    match event:
        case FindingEvent():
            return Finding(
                event.rule,
                event.step,
                event.text,
                event.confidence,
                event.numbers,
                event.advice,
                event.patch,
                event.rows,
            )
        case NonFiniteEvent():
            without = trouble_text(replace(event, rows=())) or ""
            return Finding(event.kind, event.step, without, rows=event.rows)
        case OutOfMemoryEvent() | SaveFailedEvent() | BestLostEvent():
            return Finding(event.kind, event.step, trouble_text(event) or "")
    return None


def _peak_memory_bytes(events: Iterable[Event]) -> int:
    return max((e.peak_memory_bytes for e in events if isinstance(e, EndEvent)), default=0)
