"""The numbers of a finished run: `summary.json`, and the table that ends the command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from llamafarm.errors import OutputError, count_of
from llamafarm.monitoring.comparison import PairedChange, verdict_text
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
from llamafarm.monitoring.formats import (
    format_bytes,
    format_duration,
    format_gap,
    format_loss,
    format_perplexity,
    format_rate,
)
from llamafarm.monitoring.history import LossHistory
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.lines import rows_text, trouble_text
from llamafarm.monitoring.verdict import verdict

_NAME_WIDTH = 17
_LARGEST_LOSS = 700.0
_MOST_FINDINGS = 20
_FILES = (
    ("final model", "final_model"),
    ("report", "report.html"),
    ("numbers", "summary.json"),
    ("every event", "metrics.jsonl"),
    ("every decision", "run.json"),
    ("the same again", "strategy.yaml"),
)


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


def render_summary(
    summary: RunSummary, run_dir: Path, *, curves: str = "", command: str = "llamafarm"
) -> str:
    """The end of `train`: verdict, numbers, where everything is, what to type next.

    curves: a drawing to put under the verdict; command: how the reader calls this program. The last
    line is the run directory alone, for scripts.
    """
    blocks = [
        f"{verdict_line(summary)}\n{verdict(summary)}",
        curves,
        "\n".join(_comparison(summary)),
        "\n".join(_facts(summary)),
        "\n".join(_found(summary.findings)),
        "\n".join(_files(run_dir)),
        "\n".join(_next_commands(run_dir, command)),
        str(run_dir),
    ]
    return "\n\n".join(block for block in blocks if block)


def verdict_line(summary: RunSummary) -> str:
    """`eval loss 2.231 → 1.839 (-17.6 %), best at step 48 of 57; gap +0.040`."""
    if summary.eval_loss is None:
        return f"trained {summary.steps} steps without an evaluation"
    text = f"eval loss {format_loss(summary.eval_loss)}"
    if summary.base_eval_loss:
        change = 100 * (summary.eval_loss / summary.base_eval_loss - 1)
        text = (
            f"eval loss {format_loss(summary.base_eval_loss)} → {format_loss(summary.eval_loss)}"
            f" ({change:+.1f} %)"
        )
    if summary.best_step is not None:
        text += f", best at step {summary.best_step} of {summary.steps}"
    return text if summary.gap is None else f"{text}; gap {format_gap(summary.gap)}"


def _comparison(summary: RunSummary) -> list[str]:
    """Base against tuned."""
    if summary.eval_loss is None:
        return []
    base, tuned = summary.base_eval_loss, summary.eval_loss
    rows = [("", "base", "tuned", "change")] if base is not None else [("", "", "tuned", "")]
    rows.append(_comparison_row("eval loss", base, tuned, format_loss))
    base_perplexity = None if base is None else perplexity_of(base)
    tuned_perplexity = summary.perplexity or perplexity_of(tuned)
    rows.append(_comparison_row("perplexity", base_perplexity, tuned_perplexity, format_perplexity))
    for name, value in summary.metrics.items():
        rows.append(_comparison_row(name, summary.base_metrics.get(name), value, format_loss))
    return [f"  {a:<{_NAME_WIDTH}}{b:>9}{c:>9}{d:>12}".rstrip() for a, b, c, d in rows]


def _comparison_row(
    name: str, base: float | None, tuned: float, write: Callable[[float], str]
) -> tuple[str, str, str, str]:
    if base is None:
        return name, "", write(tuned), ""
    if not base:
        return name, write(base), write(tuned), ""
    return name, write(base), write(tuned), f"{100 * (tuned / base - 1):+.1f} %"


def _facts(summary: RunSummary) -> list[str]:
    """One fact a line; what was not measured is not there."""
    facts: list[tuple[str, str]] = []
    if summary.best_step is not None:
        facts.append(("best step", f"{summary.best_step} of {summary.steps}"))
    if summary.gap is not None:
        losses = (
            f"eval {format_loss(summary.eval_loss)}, training {format_loss(summary.train_loss)}"
        )
        facts.append(("gap", f"{format_gap(summary.gap)}  ({losses})"))
    elif summary.train_loss is not None:
        facts.append(("training loss", format_loss(summary.train_loss)))
    if summary.against_base is not None:
        facts.append(("against base", paired_text(summary.against_base)))
    if summary.last_against_best is not None:
        text = f"against the best one: {paired_text(summary.last_against_best)}"
        facts.append(("last step", text))
    facts.append(("time", format_duration(summary.runtime_seconds)))
    if summary.tokens_per_second is not None:
        tokens = f"{summary.train_tokens:,} tokens read, {summary.trained_tokens:,} trained on"
        facts.append(("speed", f"{format_rate(summary.tokens_per_second)}  ({tokens})"))
    if summary.peak_memory_bytes:
        facts.append(("peak memory", format_bytes(summary.peak_memory_bytes)))
    return _aligned(facts)


def paired_text(paired: PairedChange) -> str:
    """`better: change -0.392 (-0.450 to -0.330), lower on 9 of 10 rows`."""
    text = f"{verdict_text(paired)}; change {format_gap(paired.change)}"
    if paired.low is not None and paired.high is not None:
        text += f" ({format_gap(paired.low)} to {format_gap(paired.high)})"
    return f"{text}, lower on {paired.better:,} of {count_of(paired.rows, 'row')}"


def _found(findings: Sequence[Finding]) -> list[str]:
    """What was found, with what to do about it; then what went wrong on the way."""
    advised = [finding for finding in findings if finding.advice]
    others = [finding for finding in findings if not finding.advice]
    lines: list[str] = []
    told: set[str] = set()
    for finding in advised:
        name = finding.rule.replace("_", " ")
        sure = "" if finding.confidence >= 1 else f", {int(100 * finding.confidence)} % sure"
        lines.append(f"{name}{sure}: {finding.text}{rows_text(finding.rows)}")
        if finding.rule not in told:
            lines += [f"  try: {finding.advice}"]
            lines += [f"  {' '.join(_as_flags(finding.patch))}"] if finding.patch else []
        told.add(finding.rule)
    found = [("" if number else "found", line) for number, line in enumerate(lines)]
    found += [
        ("" if number else "on the way", finding.text + rows_text(finding.rows))
        for number, finding in enumerate(others)
    ]
    return _aligned(found)


def _as_flags(patch: Mapping[str, float | int | str | bool]) -> list[str]:
    """As a person types it: `--set training_args.learning_rate=0.0002`."""
    return [f"--set {shlex.quote(f'{path}={set_value(value)}')}" for path, value in patch.items()]


def set_value(value: float | int | str | bool) -> str:
    """As YAML reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _files(run_dir: Path) -> list[str]:
    """What can be found where; only what is there."""
    places = [(name, run_dir / file) for name, file in _FILES]
    return _aligned([(name, str(path)) for name, path in places if path.exists()])


def _next_commands(run_dir: Path, command: str) -> list[str]:
    """What a person wants to type now."""
    source = shlex.quote(str(run_dir))
    return [
        f"  {command} chat {source}",
        f"  {command} evaluate {source} --dataset FILE --compare-base",
        f"  {command} convert {source} ./my-model --format ollama",
    ]


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"  {name:<{_NAME_WIDTH}}{value}" for name, value in rows]


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
