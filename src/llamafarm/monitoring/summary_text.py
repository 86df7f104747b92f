"""The numbers of a finished run as the table that ends `train`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llamafarm.errors import count_of
from llamafarm.monitoring.comparison import PairedChange, verdict_text
from llamafarm.monitoring.formats import (
    format_bytes,
    format_duration,
    format_gap,
    format_loss,
    format_perplexity,
    format_rate,
)
from llamafarm.monitoring.lines import rows_text
from llamafarm.monitoring.summary import Finding, RunSummary, perplexity_of
from llamafarm.monitoring.verdict import verdict

_NAME_WIDTH = 17
_FILES = (
    ("final model", "final_model"),
    ("report", "report.html"),
    ("numbers", "summary.json"),
    ("every event", "metrics.jsonl"),
    ("every decision", "run.json"),
    ("the same again", "strategy.yaml"),
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
            lines += [f"  {' '.join(as_flags(finding.patch))}"] if finding.patch else []
        told.add(finding.rule)
    found = [("" if number else "found", line) for number, line in enumerate(lines)]
    found += [
        ("" if number else "on the way", finding.text + rows_text(finding.rows))
        for number, finding in enumerate(others)
    ]
    return _aligned(found)


def as_flags(patch: Mapping[str, float | int | str | bool]) -> list[str]:
    """As a person types it: `--set training_args.learning_rate=0.0002`."""
    return [f"--set {shlex.quote(f'{path}={_set_value(value)}')}" for path, value in patch.items()]


def _set_value(value: float | int | str | bool) -> str:
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
