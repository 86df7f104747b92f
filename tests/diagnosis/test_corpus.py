"""The recorded runs, replayed through the rules of today."""

from __future__ import annotations

import pytest

from llamafarm.monitoring.diagnosis.diagnose import RULES

from .cases import CHANGED_AFTER, FAULTS, HEALTHY, PARTS, TUNING, Case, all_cases
from .make_corpus import corpus_file
from .score import BEGIN, END, PAGE, false_alarms, held_out, scores, table

WORTH_TELLING = 0.9


Told = dict[Case, frozenset[str]]


@pytest.fixture(scope="module")
def found() -> Told:
    by_case, missing = held_out()
    assert missing == ()
    return by_case


def test_every_fault_is_held_out_with_two_seeds_on_both_sets_of_rows() -> None:
    for fault in FAULTS:
        cases = [c for c in all_cases() if c.fault == fault and c.part != TUNING]
        for data in ("medical", "parcels"):
            least = 10 if fault == HEALTHY else 2
            assert len({c.seed for c in cases if c.data == data}) >= least


def test_every_changed_rule_has_its_faults_among_those_made_afterwards() -> None:
    for rule, part in CHANGED_AFTER.items():
        later = PARTS[PARTS.index(part) + 1 :]
        of_rule = [c for c in all_cases() if c.part in later and (rule,) in _first(c)]
        assert {c.data for c in of_rule} == {"medical", "parcels"} and len(of_rule) >= 4


def _first(case: Case) -> set[tuple[str, ...]]:
    return {group[:1] for group in FAULTS[case.fault].right}


def test_no_two_parts_share_rows_and_seed() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    seeds = [{(c.data, c.seed) for c in cases if c.part == part} for part in PARTS]
    assert len(set.union(*seeds)) == sum(map(len, seeds))


def test_every_rule_has_a_fault_that_it_is_right_for() -> None:
    right = {rule for fault in FAULTS.values() for group in fault.right for rule in group}
    assert right == {rule.__name__ for rule in RULES} | {"spike"}


def test_no_healthy_run_raises_an_alarm(found: Told) -> None:
    assert false_alarms(found) == ()


@pytest.mark.parametrize("rule", [score.rule for score in scores({})])
def test_what_is_told_is_right_and_what_is_right_is_told(rule: str, found: Told) -> None:
    (score,) = [score for score in scores(found) if score.rule == rule]
    assert score.precision >= WORTH_TELLING and score.recall >= WORTH_TELLING


def test_the_page_has_the_scores_of_today() -> None:
    text = PAGE.read_text(encoding="utf-8")
    published = text.split(BEGIN)[1].split(END)[0].strip()
    assert published == table(*held_out()), "python -m tests.diagnosis.score --write"


def test_the_page_tells_of_every_finding() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for rule in (*(rule.__name__ for rule in RULES), "spike"):
        assert f"\n### {rule}\n" in text and f"(#{rule})" in text


def test_every_file_of_the_corpus_is_a_case() -> None:
    names = {corpus_file(case).name for case in all_cases()}
    there = {file.name for file in corpus_file(all_cases()[0]).parent.glob("*.gz")}
    assert there == names
