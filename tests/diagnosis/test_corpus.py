"""The recorded runs, replayed through the rules of today."""

from __future__ import annotations

import math

import pytest

from llamafarm.monitoring.diagnosis.diagnose import RULES

from .cases import FAULTS, HEALTHY, Case, all_cases
from .make_corpus import corpus_file
from .score import BEGIN, END, PAGE, cases_of, false_alarms, held_out_table, scores, told

WORTH_TELLING = 0.9


@pytest.fixture(scope="module")
def held_out() -> dict[Case, frozenset[str]]:
    return {case: told(case) for case in cases_of("held_out")[0]}


def test_every_fault_is_held_out_with_two_seeds_on_both_sets_of_rows() -> None:
    for fault in FAULTS:
        cases = [c for c in all_cases() if c.fault == fault and c.part == "held_out"]
        assert {c.data for c in cases} == {"medical", "parcels"}
        assert len(cases) == (12 if fault == HEALTHY else 4)


def test_no_run_is_both_tuned_on_and_held_out() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    seeds = {
        part: {(c.data, c.seed) for c in cases if c.part == part} for part in ("tuning", "held_out")
    }
    assert not seeds["tuning"] & seeds["held_out"]


def test_every_rule_has_a_fault_that_it_is_right_for() -> None:
    right = {rule for fault in FAULTS.values() for group in fault.right for rule in group}
    assert right == {rule.__name__ for rule in RULES} | {"spike"}


def test_no_healthy_run_raises_an_alarm(held_out: dict[Case, frozenset[str]]) -> None:
    assert false_alarms(held_out) == ()


@pytest.mark.parametrize("rule", [score.rule for score in scores({})])
def test_what_is_told_is_right_and_what_is_right_is_told(
    rule: str, held_out: dict[Case, frozenset[str]]
) -> None:
    (score,) = [score for score in scores(held_out) if score.rule == rule]
    for share in (score.precision, score.recall):
        assert math.isnan(share) or share >= WORTH_TELLING


def test_the_page_has_the_scores_of_today() -> None:
    text = PAGE.read_text(encoding="utf-8")
    published = text.split(BEGIN)[1].split(END)[0].strip()
    assert published == held_out_table(), "python -m tests.diagnosis.score --write"


def test_the_page_tells_of_every_finding() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for rule in (*(rule.__name__ for rule in RULES), "spike"):
        assert f"\n### {rule}\n" in text and f"(#{rule})" in text


def test_every_file_of_the_corpus_is_a_case() -> None:
    names = {corpus_file(case).name for case in all_cases()}
    there = {file.name for file in corpus_file(all_cases()[0]).parent.glob("*.gz")}
    assert there <= names
