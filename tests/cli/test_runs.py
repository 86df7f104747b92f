from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llamafarm import api
from llamafarm.monitoring.run_overview import SORT_KEYS, RunOverview
from llamafarm.run_directories import RunList
from tests.monitoring.report.records import full_record
from tests.monitoring.run_directories import (
    EVENTS,
    STRATEGY,
    is_going_on,
    write_rows,
    write_run,
    write_whole_run,
)

from .conftest import Done

Run = Callable[..., Done]
GOLDEN = Path(__file__).parents[1] / "golden" / "cli"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, one that goes on, and one that cannot be read; in ./fine_tuned_models."""
    monkeypatch.chdir(tmp_path)
    directory = Path("fine_tuned_models")
    record = full_record(directory / "first")
    write_whole_run(record.root, replace(record, strategy_yaml=STRATEGY))
    write_rows(record.root, 8, [1.739 + 0.02 * i for i in range(11)])
    started = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC).isoformat()
    write_run(directory / "second", EVENTS[:5], status="running", started=started)
    (directory / "broken").mkdir()
    (directory / "broken" / "run.json").write_text('{"id": ')
    return directory


def second_of(runs: Path) -> Path:
    """The same with another learning rate, and better on every row."""
    record = full_record(runs / "second")
    yaml = STRATEGY.replace("0.0002", "0.001").replace("r: 8", "r: 16")
    versions = {**record.versions, "torch": "2.13.1"}
    changed = replace(record, strategy_yaml=yaml, status="completed", versions=versions)
    changed = replace(changed, summary=replace(record.summary, eval_loss=1.739, perplexity=5.69))
    write_whole_run(changed.root, changed)
    write_rows(changed.root, 8, [1.639 + 0.02 * i + 0.004 * (i - 5) for i in range(11)])
    return changed.root


def test_the_list_looks_as_agreed(llamafarm: Run, runs: Path) -> None:
    with is_going_on(runs / "second"):
        done = llamafarm("runs")
    assert done == Done(
        0,
        (GOLDEN / "runs.txt").read_text(encoding="utf-8"),
        "warning: broken: run.json is not a JSON object\n",
    )


def test_the_comparison_looks_as_agreed(llamafarm: Run, runs: Path) -> None:
    second_of(runs)
    done = llamafarm("runs", str(runs / "first"), str(runs / "second"))
    assert done == Done(0, (GOLDEN / "runs_compared.txt").read_text(encoding="utf-8"), "")


def test_a_run_is_found_by_its_name_in_the_usual_place(llamafarm: Run, runs: Path) -> None:
    second_of(runs)
    by_name = llamafarm("runs", "first", "second")
    assert by_name == llamafarm("runs", str(runs / "first"), str(runs / "second"))


def test_a_program_gets_every_number(llamafarm: Run, runs: Path) -> None:
    listed = json.loads(llamafarm("runs", str(runs), "--sort", "name", "--json").out)
    assert [run["name"] for run in listed["runs"]] == ["broken", "first", "second"]
    assert listed["runs"][1]["eval_loss"] == 1.839
    assert listed["runs"][0]["problems"] == ["run.json is not a JSON object"]
    second_of(runs)
    compared = json.loads(llamafarm("runs", "first", "second", "--json").out)
    assert compared["runs"] == ["first", "second"]
    assert compared["row_by_row"][0]["paired"]["verdict"] == "better"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("nothing",), "the directory nothing does not exist"),
        (("first", "nothing"), "nothing is not a run directory: there is no such directory"),
        (("first", "fine_tuned_models/first"), "is named twice"),
        (("first", "second", "--sort", "loss"), "--sort  has no effect where runs are compared"),
        (("--sort", "colour"), "expected one of started, name, status, loss, change, time, speed"),
    ],
)
def test_what_cannot_be_listed_or_compared_is_an_error_of_the_user(
    llamafarm: Run, runs: Path, argv: tuple[str, ...], told: str
) -> None:
    done = llamafarm("runs", *argv)
    assert (done.code, done.out) == (2, "")
    assert told in done.err


def test_an_empty_directory_has_no_runs(llamafarm: Run, tmp_path: Path) -> None:
    assert llamafarm("runs", str(tmp_path)) == Done(0, f"{tmp_path}: 0 runs\n", "")


def test_texts_of_strangers_do_not_steer_the_terminal(
    llamafarm: Run, fake_api: Callable[..., Any]
) -> None:
    run = RunOverview("a\x1b[2J", Path("a"), "completed", model="b\x07")
    fake_api("runs", RunList(Path("runs"), (run,)))
    out = llamafarm("runs").out
    assert "\x1b" not in out
    assert "a\\x1b[2J" in out


def test_the_help_names_everything_that_a_list_can_be_sorted_by(llamafarm: Run) -> None:
    line = next(x for x in llamafarm("runs", "--help").out.splitlines() if "--sort" in x)
    assert all(key in line for key in SORT_KEYS)


def test_the_verbs_are_functions_of_the_package(runs: Path) -> None:
    assert [run.name for run in api.runs(runs, sort="name").runs] == ["broken", "first", "second"]
    second_of(runs)
    assert api.compare_runs([runs / "first", runs / "second"]).reference == "first"
