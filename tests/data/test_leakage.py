from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamafarm.data.leakage import check_leakage, find_leakage, leakage_warnings
from llamafarm.data.report import LeakageReport, LeakedRow, leak_text, leakage_text
from llamafarm.data.rows import Conversation, RowRef
from llamafarm.data.survey import Surveyor, facts_of, near_duplicates
from llamafarm.errors import GateRefused
from tests.data.test_survey import LONG, asked

NAMES = ("train.jsonl", "eval.jsonl")
PASSAGE = Conversation(RowRef("r", 1), text=LONG)
OTHER_THINGS = "Then more was said of other things and people, and of " + LONG[::-1]
CLEAN = [asked(f"What is {n}?", f"It is the number {n}.") for n in range(3)]


def leakage(folder: Path, train: list[Conversation], measured: list[Conversation]) -> LeakageReport:
    with Surveyor(folder) as surveyor:
        for source, rows in enumerate((train, measured)):
            for position, row in enumerate(rows):
                facts = facts_of(row)
                surveyor.add(facts, source=source, position=position, line=position + 1)
        survey = surveyor.finish()
        return find_leakage(
            survey,
            "eval",
            survey.rows_of(1),
            survey.rows_of(0),
            near_duplicates(survey),
            NAMES,
            forced=False,
        )


@pytest.mark.parametrize(
    ("train", "measured", "kind"),
    [
        (asked("Who  is it?", "Ada."), asked("Who is it?", "Ada."), "exact"),
        (asked("who is it", "ada"), asked("Who is it?", "Ada."), "normalised"),
        (asked("What to do?", LONG), asked("What now?", LONG + "s"), "near"),
        (asked("Who is it?", "Ada."), asked("Who is it?", "Bob the builder."), "same prompt"),
        (asked("All of it?", f"Well. {LONG}. {OTHER_THINGS}"), PASSAGE, "contained"),
    ],
    ids=["exact", "normalised", "near", "same prompt", "contained"],
)
def test_each_kind_of_leak_is_found_and_named(
    train: Conversation, measured: Conversation, kind: str, tmp_path: Path
) -> None:
    report = leakage(tmp_path, [*CLEAN, train], [measured])
    assert [(leak.kind, str(leak.row), str(leak.twin)) for leak in report.examples] == [
        (kind, "eval.jsonl:1", "train.jsonl:4")
    ]
    assert report.rows == 1
    assert report.leaked + report.contained == 1


def test_rows_that_share_nothing_do_not_leak(tmp_path: Path) -> None:
    report = leakage(tmp_path, CLEAN, [asked("Where is Rome?", "In Italy, I think.")])
    assert (report.leaked, report.contained, report.examples) == (0, 0, ())
    check_leakage([report], allowed=False)
    assert leakage_warnings([report]) == []


def test_a_row_counts_once_under_the_first_kind_that_fits(tmp_path: Path) -> None:
    report = leakage(tmp_path, [CLEAN[0], CLEAN[0]], [CLEAN[0]])
    assert (report.exact, report.leaked) == (1, 1)


def test_a_near_copy_of_a_row_that_stands_on_both_sides_is_found_through_its_copy(
    tmp_path: Path,
) -> None:
    """Only one of equal rows is searched with: here the evaluation row, which comes first."""
    with Surveyor(tmp_path) as surveyor:
        rows = [
            (1, asked("What to do?", LONG)),
            (0, asked("what to do", LONG.upper())),
            (1, asked("What now?", LONG + "s")),
        ]
        for position, (source, row) in enumerate(rows):
            surveyor.add(facts_of(row), source=source, position=position, line=position + 1)
        survey = surveyor.finish()
        report = find_leakage(
            survey,
            "eval",
            survey.rows_of(1),
            survey.rows_of(0),
            near_duplicates(survey),
            NAMES,
            forced=False,
        )
    assert (report.normalised, report.near) == (1, 1)
    assert {str(leak.twin) for leak in report.examples} == {"train.jsonl:2"}


def test_a_row_in_a_large_group_of_near_copies_is_found(tmp_path: Path) -> None:
    """Every row ends in a number of its own: all are near each other, in more pairs than named."""
    rows = [asked(f"What to do, {n}?", f"{LONG} {LONG[::-1]} {n}") for n in range(300)]
    report = leakage(tmp_path, rows[:5], rows[5:])
    assert (report.near, report.rows) == (295, 295)
    assert all(leak.similarity >= 0.7 for leak in report.examples)


REPORT = LeakageReport(
    side="eval",
    rows=100,
    exact=1,
    normalised=0,
    near=1,
    same_prompt=0,
    contained=4,
    forced=False,
    examples=(
        LeakedRow(RowRef("eval.jsonl", 3), RowRef("train.jsonl", 17), "near", 0.812),
        LeakedRow(RowRef("eval.jsonl", 5), RowRef("train.jsonl", 18), "contained", 1.0),
    ),
)


def test_the_gate_refuses_more_than_one_percent_and_names_rows() -> None:
    with pytest.raises(GateRefused) as refused:
        check_leakage([REPORT], allowed=False)
    assert refused.value.exit_code == 3
    assert "2 of 100 evaluation rows" not in refused.value.summary  # contained rows are told apart
    assert "1 exact, 1 near, 4 contained" in refused.value.summary
    problem, more = refused.value.problems
    assert more.message == "and 1 more"
    assert problem.where == "eval.jsonl:3"
    assert "train.jsonl:17" in problem.message and "0.81" in problem.message
    assert "--allow-leakage" in refused.value.hint


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({}, True),
        ({"near": 0}, False),
        ({"exact": 0, "near": 0, "contained": 100}, False),
        ({"forced": True, "near": 50}, False),
        ({"rows": 0, "exact": 0, "near": 0}, False),
    ],
    ids=["allowed", "one percent", "contained only", "forced", "no rows"],
)
def test_the_gate_lets_pass_what_is_allowed_little_contained_or_forced(
    change: dict[str, int], allowed: bool
) -> None:
    check_leakage([replace(REPORT, **change)], allowed=allowed)


def test_leaks_are_told_in_words() -> None:
    assert leakage_text(REPORT) == "6 of 100 evaluation rows: 1 exact, 1 near, 4 contained"
    assert leak_text(REPORT.examples[0]) == (
        "eval.jsonl:3 says nearly the same as train.jsonl:17 (81%)"
    )
    (warning,) = leakage_warnings([REPORT])
    assert "the loss on them looks better than it is" in warning


def test_the_share_counts_what_the_gate_counts() -> None:
    assert np.isclose(REPORT.share, 0.02)
    assert replace(REPORT, rows=0).share == 0


def test_a_side_that_only_another_version_knows_is_called_by_its_name() -> None:
    report = replace(REPORT, side="calibration")
    assert leakage_text(report).startswith("6 of 100 calibration rows: ")
