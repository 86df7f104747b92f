"""The measured part of docs/benchmarks.md: written between two marks, from a results file, and from
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Figures, Measured
from bench.spec import BASELINE, EngineRun, RunSpec
from llamafarm.errors import count_of

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
QUIET_LOAD = 0.5
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran. memory_bytes: in all."""

    cpu: str
    cores: int
    capability: str
    memory_bytes: int
    system: str


@dataclass(frozen=True, slots=True)
class Section:
    """One data set of the report. spec: what all its runs had in common."""

    title: str
    spec: RunSpec
    measured: Measured
    figures: Sequence[Figures]
    base_held_out_loss: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is shown. date: ISO; command: what was typed; results_file: name of the file
    that holds the runs.
    """

    date: str
    command: str
    machine: Machine
    results_file: str
    sections: Sequence[Section]


def write_report(path: Path, report: Report) -> None:
    """Replace what stands between the marks; the rest of the page stays.

    Raises ValueError when the page does not have both marks.
    """
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} does not have the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{render(report)}\n{END}{after}", encoding="utf-8")


def render(report: Report) -> str:
    """Markdown."""
    parts = [_head(report), *(_section(section) for section in report.sections), _tail(report)]
    return "\n\n".join(parts)


COLUMNS = (
    "engine",
    "useful tokens/s",
    "against TRL as shipped",
    "trained tokens/s",
    "step, median (p90)",
    "positions computed a token",
    "peak memory",
    "share of the matrix-product limit",
    "held-out loss",
)


def _head(report: Report) -> str:
    machine = report.machine
    load = max(run.load_average for run in _runs(report))
    sentences = [
        f"Measured {report.date} on {machine.cpu}, {machine.cores} cores ({machine.capability}),",
        f"{machine.memory_bytes / GIB:.0f} GiB, {machine.system};",
        f"{report.sections[0].spec.threads} threads for every engine.",
        f"Command: `{report.command}`. Every run: `bench/results/{report.results_file}`.",
    ]
    if load > QUIET_LOAD:
        sentences += [
            f"**The machine was not quiet**: its load average was up to {load:.1f}",
            "before a run began, so these figures are rough.",
        ]
    return " ".join(sentences)


def _section(section: Section) -> str:
    rule = ["---", *["---:"] * (len(COLUMNS) - 1)]
    return "\n".join(
        [
            f"### {section.title}",
            "",
            _what_was_run(section),
            "",
            _row(COLUMNS),
            _row(rule),
            *(_line(figure) for figure in section.figures),
            "",
            f"Held-out loss of the base model: {section.base_held_out_loss:.4f}.",
        ]
    )


def _what_was_run(section: Section) -> str:
    spec, measured = section.spec, section.measured
    rounds = next(iter(measured.runs.values()))
    tokens = sum(step.tokens for step in rounds[0].steps) / spec.total_steps
    trained = sum(step.trained_tokens for step in rounds[0].steps) / spec.total_steps
    sentences = (
        f"{spec.batch_size} conversations a step: {tokens:.0f} tokens, {trained:.0f} of them",
        f"trained, on average. {count_of(len(rounds), 'round')}, each of {spec.warmup_steps} steps",
        "to warm up",
        f"and {spec.timed_steps} timed ones. Best matrix product in the same session:",
        f"{measured.limit / 1e9:.0f} GFLOP/s; useful work a token:",
        f"{measured.flops_per_token / 1e9:.2f} GFLOP.",
    )
    return " ".join(sentences)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(figure: Figures) -> str:
    cells = (
        figure.engine.title,
        f"{figure.tokens_per_second:.0f}",
        f"{figure.speed_ratio:.2f} ×",
        f"{figure.trained_tokens_per_second:.0f}",
        f"{figure.step_seconds_median:.2f} s ({figure.step_seconds_p90:.2f} s)",
        f"{figure.slots_per_token:.2f}",
        f"{figure.peak_rss_bytes / GIB:.2f} GiB",
        f"{figure.limit_share:.0%}",
        f"{figure.held_out_loss:.4f}",
    )
    return _row(cells)


def _tail(report: Report) -> str:
    """Versions, and everything that is not a default."""
    first = report.sections[0]
    lines = ["### Versions and settings", ""]
    for tool, runs in _by_tool(first).items():
        versions = ", ".join(f"{name} {number}" for name, number in runs[0].versions.items())
        lines.append(f"- {tool}: {versions}")
    lines += ["", "What differs from each tool's own defaults:", ""]
    for figure in first.figures:
        settings = first.measured.runs[figure.engine.name][0].settings
        lines.append(f"- {figure.engine.title}: {_settings(settings)}")
    return "\n".join(lines)


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in sorted(settings.items()))


def _by_tool(section: Section) -> dict[str, Sequence[EngineRun]]:
    found: dict[str, Sequence[EngineRun]] = {}
    for figure in section.figures:
        found.setdefault(figure.engine.tool, section.measured.runs[figure.engine.name])
    return found


def _runs(report: Report) -> list[EngineRun]:
    return [
        run
        for section in report.sections
        for runs in section.measured.runs.values()
        for run in runs
    ]


def verdict_line(section: Section, target: float) -> str:
    """One line for the person who waits: our speed against the baseline's, and what was to be
    reached.
    """
    ours = section.figures[0]
    reached = "reached" if ours.speed_ratio >= target else "NOT reached"
    return (
        f"{section.title}: {ours.speed_ratio:.2f} x {BASELINE.title} "
        f"({ours.tokens_per_second:.0f} useful tokens/s); {target:.1f} x {reached}"
    )
