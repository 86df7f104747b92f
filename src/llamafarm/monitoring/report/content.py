"""What a report says of a run, as plain values: the page and the model card are made of the same.

What is not known is not there.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from llamafarm.data.facts import data_facts
from llamafarm.decision import Decision
from llamafarm.errors import count_of, listed
from llamafarm.monitoring.comparison import Sample, verdict_text
from llamafarm.monitoring.formats import (
    format_bytes,
    format_duration,
    format_gap,
    format_loss,
    format_perplexity,
    format_rate,
)
from llamafarm.monitoring.history import LossHistory
from llamafarm.monitoring.report.facts import Facts, settings_facts, version_facts
from llamafarm.monitoring.report.tables import Table, forecast_table, results_table
from llamafarm.monitoring.run_record import RunRecord
from llamafarm.monitoring.summary import Finding
from llamafarm.monitoring.summary_text import as_flags
from llamafarm.monitoring.verdict import run_verdict
from llamafarm.planning.plan import SAMPLE_TOKENS

_ROWS_NAMED = 6
_REMARKS = ("warning", "notice")
# Kinds of events that say little to a reader.
_NAMES = {"oom": "out of memory", "nonfinite": "not a finite number", "more": ""}


@dataclass(frozen=True, slots=True)
class KeyNumber:
    """One of the numbers that a reader wants first. note: what to compare it with."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportedFinding:
    """Something worth a look. step 0: before the first step; to_try: flags, as a person types
    them.
    """

    step: int
    rule: str
    text: str
    advice: str = ""
    confidence: str = ""
    numbers: Facts = ()
    to_try: str = ""
    rows: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What can be done with the model: what for, and what to type."""

    purpose: str
    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """All parts, in the order of the page. intro: who, when and where, in a few words each;
    sample_tokens: how many a sample's answer has at most.
    """

    title: str
    status: str
    intro: tuple[str, ...]
    verdict: str
    outcome: str
    numbers: tuple[KeyNumber, ...]
    findings: tuple[ReportedFinding, ...]
    results: Table | None
    samples: tuple[Sample, ...]
    sample_tokens: int
    data: Facts
    data_warnings: tuple[str, ...]
    settings: Facts
    decisions: tuple[Decision, ...]
    remarks: tuple[Decision, ...]
    forecast: Table | None
    usage: tuple[Usage, ...]
    versions: Facts
    strategy_yaml: str
    unread: tuple[str, ...]


def content_of(record: RunRecord, place: str = "") -> Content:
    """Everything that the record has to say. place: how commands name the run, if not by its
    path.
    """
    return Content(
        title=record.name,
        status=record.status,
        intro=_intro(record),
        verdict=_verdict(record),
        outcome=_outcome(record),
        numbers=_numbers(record),
        findings=_findings(record.summary.findings),
        results=results_table(record),
        samples=record.comparison.samples if record.comparison else (),
        sample_tokens=SAMPLE_TOKENS,
        data=tuple(data_facts(record.data)) if record.data else (),
        data_warnings=record.data.warnings if record.data else (),
        settings=settings_facts(record.settings) if record.settings else (),
        decisions=tuple(d for d in record.decisions if d.source not in _REMARKS),
        remarks=tuple(d for d in record.decisions if d.source in _REMARKS),
        forecast=forecast_table(record),
        usage=_usage(record, shlex.quote(place or str(record.root.absolute()))),
        versions=version_facts(record),
        strategy_yaml=record.strategy_yaml,
        unread=record.unread,
    )


def _intro(record: RunRecord) -> tuple[str, ...]:
    """Base model, device, when and how long, and the run's id."""
    parts = [record.model.requested] if record.model else []
    if record.start:
        parts.append(f"on {_device(record, record.start.device)}")
    if record.started:
        parts.append(_moment(record.started))
    if record.summary.runtime_seconds:
        parts.append(f"{format_duration(record.summary.runtime_seconds)} in all")
    if record.resumed:
        parts.append(f"resumed {count_of(len(record.resumed), 'time')}")
    if record.id:
        parts.append(record.id)
    return tuple(parts)


def _device(record: RunRecord, device: str) -> str:
    hardware = record.hardware
    if hardware is None:
        return device
    found = [a.name for a in hardware.accelerators if a.name_in_torch == device]
    return found[0] if found else hardware.cpu.name if device == "cpu" else device


def _verdict(record: RunRecord) -> str:
    """One sentence."""
    return run_verdict(
        record.summary,
        status=record.status,
        error=record.error,
        total_steps=record.start.total_steps if record.start else None,
    )


def _outcome(record: RunRecord) -> str:
    """The numbers behind it, in a sentence more."""
    summary = record.summary
    base, tuned = summary.base_eval_loss, summary.eval_loss
    if tuned is None:
        return f"Trained {count_of(summary.steps, 'step')} without an evaluation."
    at = f" at step {summary.best_step} of {summary.steps}" if summary.best_step else ""
    if not base:
        return f"The eval loss is {format_loss(tuned)}{at}."
    change = 100 * (tuned / base - 1)
    losses = f"from {format_loss(base)} to {format_loss(tuned)} ({change:+.1f} %)"
    paired = summary.against_base
    if paired is not None and paired.verdict == "no difference":
        return f"The eval loss went {losses}{at}: {verdict_text(paired)}."
    return f"The eval loss {'fell' if tuned < base else 'rose'} {losses}{at}."


def _of_steps(record: RunRecord) -> str:
    return f" of {record.start.total_steps:,}" if record.start else ""


def _numbers(record: RunRecord) -> tuple[KeyNumber, ...]:
    summary = record.summary
    found = []
    if summary.eval_loss is not None:
        base = summary.base_eval_loss
        note = f"base {format_loss(base)}" if base else ""
        found.append(KeyNumber("eval loss", format_loss(summary.eval_loss), note))
    elif summary.train_loss is not None:
        found.append(KeyNumber("training loss", format_loss(summary.train_loss)))
    if summary.perplexity is not None:
        base_event = LossHistory.of(record.events).base
        note = f"base {format_perplexity(base_event.perplexity)}" if base_event else ""
        found.append(KeyNumber("perplexity", format_perplexity(summary.perplexity), note))
    if summary.gap is not None:
        note = f"training {format_loss(summary.train_loss)}"
        found.append(KeyNumber("gap to training", format_gap(summary.gap), note))
    found += _cost(record)
    return tuple(found[:4])


def _cost(record: RunRecord) -> list[KeyNumber]:
    summary = record.summary
    found = []
    if summary.runtime_seconds:
        speed = summary.tokens_per_second
        note = format_rate(speed) if speed is not None else ""
        found.append(KeyNumber("time", format_duration(summary.runtime_seconds), note))
    elif summary.steps:
        found.append(KeyNumber("steps", f"{summary.steps:,}", _of_steps(record).strip()))
    if summary.peak_memory_bytes:
        found.append(KeyNumber("peak memory", format_bytes(summary.peak_memory_bytes)))
    return found


def _findings(findings: Sequence[Finding]) -> tuple[ReportedFinding, ...]:
    """Those that can be acted on first, then what went wrong on the way."""
    first = [finding for finding in findings if finding.advice]
    rest = [finding for finding in findings if not finding.advice]
    return tuple(map(_finding, (*first, *rest)))


def _finding(finding: Finding) -> ReportedFinding:
    return ReportedFinding(
        step=finding.step,
        rule=_NAMES.get(finding.rule, finding.rule.replace("_", " ")),
        text=finding.text,
        advice=finding.advice,
        confidence=f"{int(100 * finding.confidence)} % sure" if finding.confidence < 1 else "",
        numbers=tuple(_evidence(k, v) for k, v in finding.numbers.items() if math.isfinite(v)),
        to_try=" ".join(as_flags(finding.patch)),
        rows=listed(finding.rows, _ROWS_NAMED),
    )


def _evidence(name: str, value: float) -> tuple[str, str]:
    words = name.replace("_", " ")
    if name.endswith("_bytes"):
        return words.removesuffix(" bytes"), format_bytes(round(value))
    return words, f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def _usage(record: RunRecord, place: str) -> tuple[Usage, ...]:
    """Only for what is there: a run without a final model can only go on."""
    train = f"llamafarm train --strategy-file {place}/strategy.yaml"
    if not record.has_model:
        return () if record.status == "running" else (Usage("Go on with it", f"{train} --resume"),)
    return (
        Usage("Talk to it", f"llamafarm chat {place}"),
        Usage("Ask one thing", f"llamafarm generate {place} 'a question'"),
        Usage(
            "Measure it on other rows",
            f"llamafarm evaluate {place} --dataset FILE --compare-base",
        ),
        Usage("Deploy it with Ollama", f"llamafarm convert {place} ./my-model --format ollama"),
        Usage("Deploy it with llama.cpp", f"llamafarm convert {place} ./my-model --format gguf"),
    )


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
