"""`make bench`: run every engine on both data sets in turn, check, and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from bench.checks import NotComparableError
from bench.run import Plan, run_bench
from bench.spec import BASELINE, ENGINES, OURS, RunSpec


def main() -> int:
    """Exit code 0 when a report was written, 3 when the engines did not do the same work."""
    arguments = parser().parse_args()
    plan = Plan(
        engines=tuple(
            e for e in ENGINES if e.name in {OURS.name, BASELINE.name, *arguments.engines}
        ),
        dataset_names=tuple(arguments.datasets),
        rounds=arguments.rounds,
        held_out_rows=arguments.held_out_rows,
        spec=replace(
            RunSpec("", "", ""),
            warmup_steps=arguments.warmup_steps,
            timed_steps=arguments.timed_steps,
            threads=arguments.threads,
        ),
        directory=arguments.work_directory,
        write_report=not arguments.no_report,
    )
    try:
        run_bench(plan)
    except NotComparableError as error:
        print(f"no report: the engines did not do the same work\n{error}", file=sys.stderr)
        return 3
    return 0


def parser() -> argparse.ArgumentParser:
    """The defaults are what docs/benchmarks.md is written with."""
    names = [engine.name for engine in ENGINES]
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    made.add_argument("--engines", nargs="*", choices=names, default=names)
    made.add_argument(
        "--datasets", nargs="*", choices=["uniform", "varied"], default=["uniform", "varied"]
    )
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--warmup-steps", type=int, default=5)
    made.add_argument("--timed-steps", type=int, default=10)
    made.add_argument("--held-out-rows", type=int, default=24)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--work-directory", type=Path, default=Path("bench/out"))
    made.add_argument("--no-report", action="store_true", help="leave docs/benchmarks.md as it is")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
