"""Precision and recall of every finding on the corpus: `python -m tests.diagnosis.score [PART]`.

Replays the recorded events through the rules of today. `--write` puts the table of the held-out
parts into docs/diagnosis.md.
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamafarm.monitoring.diagnosis import diagnose
from llamafarm.monitoring.events import Event, FindingEvent
from llamafarm.monitoring.metrics_file import read_events
from tests.diagnosis.cases import (
    CHANGED_AFTER,
    FAULTS,
    HEALTHY,
    HELD_OUT,
    PARTS,
    TUNING,
    Case,
    all_cases,
)
from tests.diagnosis.make_corpus import corpus_file

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"
RULES = tuple(
    sorted({rule for fault in FAULTS.values() for group in fault.right for rule in group})
)
# The noise row stands in the middle of the training rows: see `with_noise_row`.
_NOISE_ROW = f"train.jsonl:{FAULTS['spike_row'].train_rows // 2 + 1}"


@dataclass(frozen=True)
class Score:
    """Of one rule. found, missed: runs that it belongs to; wrong: runs in which it is untrue."""

    rule: str
    found: int
    missed: int
    wrong: int

    @property
    def precision(self) -> float:
        told = self.found + self.wrong
        return self.found / told if told else math.nan

    @property
    def recall(self) -> float:
        runs = self.found + self.missed
        return self.found / runs if runs else math.nan


def cases_of(part: str) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Those of a part that are there, and those that are not."""
    cases = [case for case in all_cases() if case.part == part]
    there = tuple(case for case in cases if corpus_file(case).exists())
    return there, tuple(case for case in cases if case not in there)


def events_of(case: Case) -> list[Event]:
    """What its run recorded."""
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "metrics.jsonl"
        file.write_bytes(gzip.decompress(corpus_file(case).read_bytes()))
        return read_events(file)


def told(case: Case) -> frozenset[str]:
    """The rules that speak. A spike counts where the row at fault is named first."""
    found = diagnose(events_of(case))
    rules = {finding.rule for finding in found}
    spikes = [finding for finding in found if finding.rule == "spike"]
    if case.fault == "spike_row" and not any(_names_it(spike) for spike in spikes):
        rules.discard("spike")
    return frozenset(rules)


def _names_it(spike: FindingEvent) -> bool:
    return bool(spike.rows) and spike.rows[0] == _NOISE_ROW


def scores(by_case: Mapping[Case, frozenset[str]]) -> tuple[Score, ...]:
    """One a rule. Where one of several findings is enough, those that are told count as found, and
    the first is missed where none is. A rule is scored on the parts that were made after its
    last change.
    """
    return tuple(
        _score(rule, {c: found for c, found in by_case.items() if _counts(c, rule)})
        for rule in RULES
    )


def _counts(case: Case, rule: str) -> bool:
    changed_after = CHANGED_AFTER.get(rule, TUNING)
    return case.part == TUNING or PARTS.index(case.part) > PARTS.index(changed_after)


def _score(rule: str, by_case: Mapping[Case, frozenset[str]]) -> Score:
    found = missed = wrong = 0
    for case, rules in by_case.items():
        fault = FAULTS[case.fault]
        groups = [group for group in fault.right if rule in group]
        if groups and rule in rules:
            found += 1
        elif any(group[0] == rule and rules.isdisjoint(group) for group in groups):
            missed += 1
        elif not groups and rule in rules and rule not in fault.also:
            wrong += 1
    return Score(rule, found, missed, wrong)


def false_alarms(by_case: Mapping[Case, frozenset[str]]) -> tuple[tuple[str, str], ...]:
    """(run, rule) of everything that was told of a healthy run."""
    healthy = ((case, rules) for case, rules in by_case.items() if case.fault == HEALTHY)
    return tuple((case.name, rule) for case, rules in healthy for rule in sorted(rules))


def table(by_case: Mapping[Case, frozenset[str]], missing: Iterable[Case]) -> str:
    """Markdown."""
    missing = tuple(missing)
    healthy = sum(case.fault == HEALTHY for case in by_case)
    counted = (
        f"{len(by_case)} runs, {healthy} of them healthy; false alarms in healthy runs: "
        f"{len(false_alarms(by_case))}."
    )
    lines = [
        counted + (f" Not made yet: {len(missing)}." if missing else ""),
        "",
        "| Finding | found | missed | told wrongly | precision | recall |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{s.rule}` | {s.found} | {s.missed} | {s.wrong} | {_share(s.precision)} | "
        f"{_share(s.recall)} |"
        for s in scores(by_case)
    ]
    return "\n".join(lines)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def held_out() -> tuple[dict[Case, frozenset[str]], tuple[Case, ...]]:
    """What is told of each run that was not tuned on, and those that are not made yet."""
    parts = [cases_of(part) for part in HELD_OUT]
    there, missing = ([c for part in parts for c in part[i]] for i in (0, 1))
    return {case: told(case) for case in there}, tuple(missing)


def main() -> None:
    """Print a part, run by run; or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="all that is held out if left out")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args()
    by_case, missing = held_out()
    if arguments.part:
        there, missing = cases_of(arguments.part)
        by_case = {case: told(case) for case in there}
    for case, rules in by_case.items():
        sys.stdout.write(f"{case.name}: {', '.join(sorted(rules)) or '-'}\n")
    sys.stdout.write(table(by_case, missing) + "\n")
    if arguments.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        text = f"{before}{BEGIN}\n{table(*held_out())}\n{END}{after}"
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
