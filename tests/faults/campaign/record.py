"""What was measured, as JSON, and the table of docs/reliability.md that is made of it and of
nothing else.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.faults.campaign.row import Case, Form, Row

BEGIN, END = "<!-- campaign: begin -->", "<!-- campaign: end -->"
_LIBRARIES = ("llamafarm", "torch", "transformers", "peft", "accelerate", "safetensors")
_MOST_FAILURES_KEPT = 50
_MOST_DETAIL_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that did not pass."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Result:
    """A row that was run to its end. facts: sums over its cases; date: ISO, UTC; machine, versions:
    where and with what.
    """

    key: str
    fault: str
    passes_when: str
    form: Form
    date: str
    seconds: float
    total: int
    passed: int
    facts: Mapping[str, float]
    failures: tuple[Failure, ...]
    machine: str
    versions: Mapping[str, str]


def result_of(row: Row, form: Form, cases: Sequence[Case], seconds: float) -> Result:
    """Of all cases of a row."""
    facts: Counter[str] = Counter()
    for case in cases:
        facts.update(case.facts)
    failed = [case for case in cases if not case.passed]
    return Result(
        key=row.key,
        fault=row.fault,
        passes_when=row.passes_when,
        form=form,
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        seconds=round(seconds, 1),
        total=len(cases),
        passed=len(cases) - len(failed),
        facts=dict(facts),
        failures=tuple(
            Failure(case.name, case.detail[-_MOST_DETAIL_CHARACTERS:])
            for case in failed[:_MOST_FAILURES_KEPT]
        ),
        machine=_machine(),
        versions={name: version(name) for name in _LIBRARIES},
    )


def read_results(file: Path) -> dict[str, Result]:
    """By key; nothing where there is no file."""
    if not file.exists():
        return {}
    values = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return {
        value["key"]: Result(
            **value | {"failures": tuple(Failure(**failure) for failure in value["failures"])}
        )
        for value in values
    }


def write_results(file: Path, results: Mapping[str, Result], order: Sequence[str]) -> None:
    """All rows, in the order of the table."""
    rows = [asdict(results[key]) for key in order if key in results]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


def write_table(page: Path, results: Sequence[Result]) -> None:
    """Replace what stands between the marks; the rest of the page stays.

    Raises ValueError when the page does not have both marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} does not have the marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{render(results)}\n{END}{after}", encoding="utf-8")


def render(results: Sequence[Result]) -> str:
    """Markdown: the rows, what failed, and where it was measured."""
    if not results:
        return "Not measured yet."
    lines = [
        "| fault | passed | passes when | seen | measured |",
        "| --- | ---: | --- | --- | --- |",
    ]
    lines += [
        *map(_row, results),
    ]
    parts = ["\n".join(lines)]
    failures = [f"- {r.key}: {failure.name}" for r in results for failure in r.failures]
    if failures:
        parts.append("What failed:\n\n" + "\n".join(failures))
    machines = sorted({r.machine for r in results})
    with_ = sorted({", ".join(f"{k} {v}" for k, v in r.versions.items()) for r in results})
    parts.append(f"Measured on {'; '.join(machines)}; with {'; '.join(with_)}.")
    return "\n\n".join(parts)


def _row(r: Result) -> str:
    form = "" if r.form == "long" else ", the short form"
    return (
        f"| {r.fault} | {r.passed:,} of {r.total:,} | {r.passes_when} | {_facts(r.facts)} | "
        f"{r.date[:10]}, {_duration(r.seconds)}{form} |"
    )


def _facts(facts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.6g}" for name, value in facts.items())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}"
