from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.monitoring.report.run_tables import (
    count_text,
    difference_tables,
    measures_table,
    not_comparable,
    overview_table,
    row_by_row_table,
)
from llamafarm.monitoring.run_comparison import NamedRun, RowsEvaluated, compare_runs
from llamafarm.monitoring.run_overview import RunOverview, overview_of

from .records import full_record

RECORD = full_record(Path("a"))


def rows(first: float) -> RowsEvaluated:
    losses = tuple(first + 0.1 * i for i in range(8))
    return RowsEvaluated(tuple("abcdefgh"), RowLosses(losses, (10,) * 8))


def test_a_list_has_a_row_a_run_and_says_how_many_go_on() -> None:
    runs = [
        overview_of("a", RECORD),
        replace(overview_of("b", RECORD), status="running", steps=3, total_steps=40),
        RunOverview("c", Path("c"), "unreadable"),
    ]
    table = overview_table(runs)
    assert [row[:2] for row in table.rows] == [
        ("a", "completed"),
        ("b", "running"),
        ("c", "unreadable"),
    ]
    steps = table.header.index("steps")
    assert [row[steps] for row in table.rows] == ["12", "3 of 40", ""]
    assert all(len(row) == len(table.header) for row in table.rows)
    assert count_text(runs) == "3 runs, 1 of them running"
    assert count_text(runs[:1]) == "1 run"


def test_what_differed_is_a_table_a_group_and_long_values_are_cut() -> None:
    versions = {**RECORD.versions, "torch": "2.14.0", "peft": "0.21\n" + "x" * 99}
    other = replace(RECORD, versions=versions, seed=7, strategy_yaml="")
    found = compare_runs([NamedRun("a", RECORD), NamedRun("b", other)])
    tables = dict(difference_tables(found))
    assert list(tables) == ["strategy", "versions"]
    assert tables["versions"].header == ("", "a", "b")
    (torch, peft) = tables["versions"].rows
    assert torch == ("torch", "2.13.0", "2.14.0")
    assert peft[1] == "-"
    assert (len(peft[2]), peft[2][:6], peft[2][-1]) == (48, "0.21 x", "…")


def test_what_came_of_it_has_the_change_behind_the_number() -> None:
    other = replace(RECORD, summary=replace(RECORD.summary, eval_loss=1.655, best_step=None))
    found = {
        row[0]: row[1:]
        for row in measures_table(compare_runs([NamedRun("a", RECORD), NamedRun("b", other)])).rows
    }
    assert found["eval loss"] == ("1.839", "1.655 (-10.0 %)")
    assert found["best step"] == ("8", "-")


def test_row_by_row_are_those_with_the_same_rows_and_the_others_say_why_not() -> None:
    runs = [NamedRun("a", RECORD, rows(2.0)), NamedRun("b", RECORD, rows(1.5))]
    found = compare_runs([*runs, NamedRun("c", RECORD, why_not="it was not evaluated")])
    table = row_by_row_table(found)
    assert table is not None
    assert [row[0] for row in table.rows] == ["b"]
    assert table.rows[0][2] == "-0.5000"
    assert not_comparable(found) == (
        "c and a cannot be compared row by row: c: it was not evaluated",
    )
    assert row_by_row_table(compare_runs([runs[0], NamedRun("b", RECORD)])) is None
