"""docs/benchmarks-deploy.md from the kept results, and from nothing else: what stands between the
marks is replaced, the rest of the page stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from bench.deploy.results import MemoryRow, ParityRow, Part, SpeedRow
from bench.deploy.rule import Worst, worst_of
from bench.report import BEGIN, END, GIB

SPEED_GOAL = 2.0
_MB = 1e6


def write_page(path: Path, parts: Mapping[str, Part], results_file: str) -> None:
    """Raises ValueError when the page does not have both marks."""
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} does not have the marks {BEGIN} and {END}")
    text = render(parts, results_file)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def render(parts: Mapping[str, Part], results_file: str) -> str:
    """Markdown: every part that was measured."""
    tables: Mapping[str, Callable[[Part], list[str]]] = {
        "speed": _speed,
        "memory": _memory,
        "parity": lambda part: _parity(part, parts.get("rounding")),
    }
    blocks = [f"Every run: `bench/results/{results_file}`."]
    for name, table in tables.items():
        if name in parts:
            title = f"### {name.capitalize()}"
            blocks.append("\n\n".join([title, _how(parts[name]), *table(parts[name])]))
    return "\n\n".join(blocks)


def _how(part: Part) -> str:
    machine = part.machine
    versions = ", ".join(f"{name} {number}" for name, number in part.versions.items())
    sentences = [
        f"Measured {part.date} on {machine['cpu']}, {machine['cores']} cores",
        f"({machine['capability']}), {machine['memory_bytes'] / GIB:.0f} GiB, {machine['system']};",
        f"{versions}. Command: `{part.command}`.",
    ]
    sentences.append(f"Load average, the bench's own work included: up to {part.load:.1f}.")
    if part.load > machine["cores"]:
        sentences.append("**The machine was not quiet.**")
    return " ".join(sentences)


def _speed(part: Part) -> list[str]:
    rows: Sequence[SpeedRow] = part.rows
    header = (
        "output",
        "read",
        "written",
        "reading and writing alone",
        "conversion",
        "ratio",
        "ratio of the fastest runs",
        "whole command",
        "runs",
    )
    lines = [
        (
            row.kind,
            f"{row.input_bytes / _MB:.0f} MB",
            f"{row.output_bytes / _MB:.0f} MB",
            _seconds(row, "floor"),
            _seconds(row, "conversion"),
            f"{row.ratio:.2f} ×",
            f"{row.ratio_of_fastest:.2f} ×",
            _seconds(row, "command"),
            str(sum(run.what == "floor" for run in row.runs)),
        )
        for row in rows
    ]
    return [_table(header, lines), _speed_verdict(rows)]


def _seconds(row: SpeedRow, what: str) -> str:
    """The median, and the range."""
    every = [run.seconds for run in row.runs if run.what == what]
    return f"{row.seconds(what):.2f} s ({min(every):.2f} … {max(every):.2f})"


def _speed_verdict(rows: Sequence[SpeedRow]) -> str:
    """By the worse of both ratios."""
    worse = {row.kind: max(row.ratio, row.ratio_of_fastest) for row in rows}
    missed = [f"{kind} ({ratio:.2f} ×)" for kind, ratio in worse.items() if ratio > SPEED_GOAL]
    goal = f"The goal is {SPEED_GOAL:g} × the time of reading and writing alone"
    return f"{goal}: **missed** by {', '.join(missed)}." if missed else f"{goal}: reached by all."


def _memory(part: Part) -> list[str]:
    rows: Sequence[MemoryRow] = part.rows
    header = (
        "model",
        "weights",
        "largest tensor",
        "output",
        "peak over the interpreter's own",
        "allowed",
        "torch or transformers imported",
    )
    lines = [
        (
            row.model,
            f"{row.model_bytes / _MB:.0f} MB",
            f"{row.largest_tensor_bytes / _MB:.0f} MB",
            row.kind,
            f"{row.over_interpreter / _MB:.0f} MB",
            f"{row.allowed_bytes / _MB:.0f} MB",
            ", ".join(row.heavy_modules) or "no",
        )
        for row in rows
    ]
    over = [f"{r.model} to {r.kind}" for r in rows if r.over_interpreter > r.allowed_bytes]
    verdict = f"**Exceeded** by {', '.join(over)}." if over else "Kept by all."
    return [_table(header, lines), f"Allowed is twice the largest tensor and 300 MB. {verdict}"]


def _parity(part: Part, rounding: Part | None) -> list[str]:
    rows: Sequence[ParityRow] = part.rows
    worst = worst_of(rows, rounding.rows if rounding is not None else ())
    header = (
        "file type",
        "model",
        "positions",
        "mean KL",
        "largest difference of a log-probability",
        "same token",
        "same token where sure",
        "widest margin with another token",
        "differing codes",
    )
    by_type = [r for w in worst for r in rows if r.file_type == w.file_type]
    lines = [
        (
            row.file_type,
            row.model,
            str(row.positions),
            f"{row.mean_kl:.2g}",
            f"{row.max_difference:.2g}",
            f"{row.agreed / row.positions:.1%}",
            f"{row.agreed_decided} of {row.decided}",
            f"{row.widest_disagreement:.2g}",
            f"{row.differing_codes:.2%}",
        )
        for row in by_type
    ]
    return [_worst_table(worst), "Each model:", _table(header, lines)]


def _worst_table(worst: Sequence[Worst]) -> str:
    header = (
        "file type",
        "worst mean KL",
        "allowed",
        "largest difference of a log-probability",
        "widest margin with another token",
        "sure above",
        "codes that differ by rounding",
        "allowed",
    )
    lines = [
        (
            w.file_type,
            f"{w.mean_kl:.2g}",
            f"{w.allowed.mean_kl:g}",
            f"{w.max_difference:.2g}",
            f"{w.widest_disagreement:.2g}",
            f"{w.allowed.margin:g}",
            f"{w.rounding:.2%}",
            f"{w.allowed.differing_codes:.2%}",
        )
        for w in worst
    ]
    return f"The worst of all models, and what the certificate allows:\n\n{_table(header, lines)}"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))
