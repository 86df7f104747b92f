"""Measure what `llamafarm convert` costs and how exact it is, and write docs/benchmarks-deploy.md.

Parts that are not named keep their newest figures on the page.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.deploy.memory import measure_memory
from bench.deploy.page import write_page
from bench.deploy.parity import measure_parity
from bench.deploy.processes import wait_for_quiet
from bench.deploy.results import Part, read_parts, write_parts
from bench.deploy.rounding import measure_rounding
from bench.deploy.speed import measure_speed
from bench.environment import ROOT
from bench.run import say, this_machine
from llamafarm.certify import engine_versions

PARTS = ("speed", "memory", "rounding", "parity")
PAGE = ROOT / "docs" / "benchmarks-deploy.md"
RESULTS = ROOT / "bench" / "results"


class Loads:
    """The machine's load average, whenever something was measured."""

    def __init__(self) -> None:
        self.highest = os.getloadavg()[0]

    def note(self, text: str) -> None:
        """Called after each measurement; text is for the person who waits."""
        self.highest = max(self.highest, os.getloadavg()[0])
        say(text)


def main() -> int:
    """Always 0: a goal that is missed stands on the page."""
    arguments = parser().parse_args()
    directory = arguments.work_directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    wait_for_quiet(arguments.quiet_load, arguments.wait_seconds)
    for name in arguments.parts or PARTS:
        part = measure(name, directory, arguments.rounds)
        if not arguments.no_report:
            keep(name, part)
    return 0


def measure(name: str, directory: Path, rounds: int) -> Part:
    """One part, with everything that says where and how."""
    started = datetime.now(UTC)
    loads = Loads()

    def on_row(row: Any) -> None:
        loads.note(f"{name}: {row}")

    measured: Mapping[str, Callable[[], Sequence[Any]]] = {
        "speed": lambda: measure_speed(
            directory, rounds, lambda kind, run: loads.note(f"{kind}: {run}")
        ),
        "memory": lambda: measure_memory(directory, on_row),
        "rounding": measure_rounding,
        "parity": lambda: measure_parity(directory, on_row),
    }
    rows = measured[name]()
    return Part(
        date=f"{started:%Y-%m-%d}",
        command=shlex.join(["python", "-m", "bench.deploy", *sys.argv[1:]]),
        machine=asdict(this_machine()),
        versions=engine_versions(),
        load=loads.highest,
        rows=rows,
    )


def keep(name: str, part: Part) -> None:
    """Beside the newest figures of the other parts, under the date of this one."""
    newest = max(RESULTS.glob("*-deploy.json"), default=None)
    parts = {} if newest is None else read_parts(newest)
    results = RESULTS / f"{part.date}-deploy.json"
    parts = {**parts, name: part}
    write_parts(results, parts)
    write_page(PAGE, parts, results.name)
    say(f"written: {results.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def parser() -> argparse.ArgumentParser:
    """The defaults are what docs/benchmarks-deploy.md is written with."""
    made = argparse.ArgumentParser(prog="python -m bench.deploy", description=__doc__)
    made.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS)
    )
    made.add_argument("--rounds", type=int, default=5, help="of the speed part")
    made.add_argument("--work-directory", type=Path, default=Path("bench/out/deploy"))
    made.add_argument("--quiet-load", type=float, default=0.5, help="load average to wait for")
    made.add_argument("--wait-seconds", type=float, default=0.0, help="how long to wait for it")
    made.add_argument("--no-report", action="store_true", help="leave page and results as they are")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
