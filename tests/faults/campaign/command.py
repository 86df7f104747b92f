"""`python -m tests.faults.campaign`: the faults of all rows, or of some, and the table of
docs/reliability.md. `make campaign` is the long form.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from tests.faults.campaign.record import (
    Result,
    read_results,
    result_of,
    write_results,
    write_table,
)
from tests.faults.campaign.row import Form
from tests.faults.campaign.rows import MODULES, load_row

ROOT = Path(__file__).parents[3]
_PAGE = ROOT / "docs" / "reliability.md"
_RESULTS = ROOT / "docs" / "campaign"
_FILE = "results.json"
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_REPORTS = 1.0

Progress = tuple[str, int, int]
"""Key of a row, how many cases are done, how many of them failed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every case passed, 1 when one did not, 2 for a row that is not there."""
    arguments = parser().parse_args(argv)
    keys = arguments.only.split(",") if arguments.only else list(MODULES)
    if missing := [key for key in keys if key not in MODULES]:
        _say(f"no such row: {', '.join(missing)}; there are {', '.join(MODULES)}")
        return 2
    form: Form = "long" if arguments.long else "short"
    os.environ["CAMPAIGN_SEED"] = str(arguments.seed)
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("CAMPAIGN_AT_ONCE", str(max(1, cores // arguments.jobs)))
    file = None
    if arguments.results or form == "long":
        file = (arguments.results or _RESULTS) / _FILE
    earlier = read_results(file) if file else {}
    results = _run_rows(keys, form, arguments.jobs, earlier, file)
    if file and arguments.results is None:
        everything = read_results(file)
        write_table(_PAGE, [everything[key] for key in MODULES if key in everything])
    return 0 if all(r.passed == r.total > 0 for r in results) else 1


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    made = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    made.add_argument("--long", action="store_true", help="all of it; otherwise what CI does")
    made.add_argument("--only", metavar="KEY,…", help=f"rows: {', '.join(MODULES)}")
    made.add_argument("--jobs", type=int, default=2, help="rows at a time")
    made.add_argument("--seed", type=int, default=0, help="of the instants that are drawn")
    made.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="keep the record there, and leave the page as it is. Left out: the long form's goes "
        "to docs/campaign, a row that is not run staying as it was",
    )
    return made


def _run_rows(
    keys: Sequence[str],
    form: Form,
    jobs: int,
    earlier: Mapping[str, Result],
    file: Path | None,
) -> list[Result]:
    """Each row in a process of its own. Recorded as soon as it is done: hours may lie between."""
    context = multiprocessing.get_context("spawn")
    results: dict[str, Result] = dict(earlier)
    done: list[Result] = []
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        told = manager.Queue()
        waiting = {pool.submit(_run_row, key, form, told): key for key in keys}
        display = _Display(keys, earlier, form)
        while waiting:
            display.take(told)
            for future in [future for future in waiting if future.done()]:
                result = _taken(future, waiting.pop(future))
                sys.stdout.write(_line(result))
                sys.stdout.flush()
                done.append(result)
                results[result.key] = result
                if file:
                    write_results(file, results, list(MODULES))
    return done


def _taken(future: Future[Result], key: str) -> Result:
    """A row that did not come to its end is an error of the campaign, and stops it."""
    error = future.exception()
    if error is not None:
        raise RuntimeError(f"the row {key} broke off") from error
    return future.result()


def _run_row(key: str, form: Form, told: queue.Queue[Progress]) -> Result:
    """In a process of its own."""
    row = load_row(key)
    workdir = Path(tempfile.mkdtemp(prefix=f"campaign-{key}-"))
    started = time.monotonic()
    cases, failed, last = [], 0, started
    for case in row.cases(workdir, form):
        cases.append(case)
        if not case.passed:
            failed += 1
            _say(f"{key}: {case.name}: {case.detail}")
        if time.monotonic() - last > _SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            told.put((key, len(cases), failed))
    if failed:
        _say(f"{key}: the runs are in {workdir}")
    else:
        shutil.rmtree(workdir)
    return result_of(row, form, cases, time.monotonic() - started)


class _Display:
    """A line on stderr now and then: how many cases are done, and how long it will take, by what it
    took the last time.
    """

    def __init__(self, keys: Sequence[str], earlier: Mapping[str, Result], form: Form) -> None:
        known = {k: r for k, r in earlier.items() if k in keys and r.form == form}
        self._expected = {key: result.total for key, result in known.items()}
        self._seconds = sum(r.seconds for r in known.values()) if len(known) == len(keys) else None
        self._started = self._last = time.monotonic()
        self._seen: dict[str, Progress] = {}

    def take(self, told: queue.Queue[Progress]) -> None:
        """Wait a moment for what the rows tell, and say it."""
        try:
            progress = told.get(timeout=1.0)
            self._seen[progress[0]] = progress
        except queue.Empty:
            pass
        now = time.monotonic()
        if now - self._last > _SECONDS_BETWEEN_LINES:
            self._last = now
            _say(self._text(now - self._started))

    def _text(self, elapsed: float) -> str:
        parts = []
        done_share = 0.0
        for key, cases, failed in self._seen.values():
            total = self._expected.get(key)
            parts.append(f"{key} {cases}{f'/{total}' if total else ''}")
            parts += [f"({failed} failed)"] if failed else []
            done_share += cases / total if total else 0.0
        share = done_share / len(self._expected) if self._seconds else 0.0
        eta = f", about {elapsed * (1 - share) / share / 60:.0f} min left" if share > 0.01 else ""
        return f"{elapsed / 60:.1f} min: {' '.join(parts)}{eta}"


def _line(result: Result) -> str:
    return (
        f"{result.key:<11} {result.passed:>7,}/{result.total:<7,} {result.seconds:>8.1f} s   "
        f"{result.fault}\n"
    )


def _say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
