from __future__ import annotations

import errno
import importlib.util
import inspect
import os
from dataclasses import replace
from pathlib import Path

import pytest

import llamafarm
from llamafarm import run_directories as runs_module
from llamafarm.errors import OutputError, UserError
from llamafarm.monitoring.run_record import read_run_record
from llamafarm.run_directories import compare, find_runs, list_runs, named_run
from tests.monitoring.events_of_a_run import eval_event
from tests.monitoring.report.records import full_record
from tests.monitoring.run_directories import (
    add_events,
    is_going_on,
    write_rows,
    write_run,
    write_whole_run,
)


def test_runs_are_found_below_a_directory_and_not_inside_of_runs(tmp_path: Path) -> None:
    for place in ("a", "more/b", "more/deep/er/c", "a/checkpoints/d", ".hidden/e", "x/x/x/x/x/f"):
        write_run(tmp_path / place)
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "file").write_text("no run")
    found = [path.relative_to(tmp_path).as_posix() for path in find_runs(tmp_path)]
    assert found == ["a", "more/b", "more/deep/er/c"]
    assert find_runs(tmp_path / "a") == (tmp_path / "a",)


def test_every_run_is_listed_whatever_became_of_it(tmp_path: Path) -> None:
    write_run(tmp_path / "done")
    running = write_run(tmp_path / "running", status="running")
    write_run(tmp_path / "died", status="running")
    for name, text in (("cut", '{"id"'), ("list", "[1]"), ("empty", ""), ("deep", "[" * 99_999)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    with is_going_on(running):
        found = {run.name: run.status for run in list_runs(tmp_path).runs}
    assert found == {
        "done": "completed",
        "running": "running",
        "died": "stopped",
        "cut": "unreadable",
        "list": "unreadable",
        "empty": "unknown",
        "deep": "unreadable",
    }


def test_lines_of_metrics_that_are_wrong_cost_no_list(tmp_path: Path) -> None:
    root = write_run(tmp_path / "odd", status="running")
    with (root / "metrics.jsonl").open("a") as metrics:
        for step in ('"x"', "1e999", "null", "1" * 5000, "[" * 5000, "true"):
            metrics.write(f'{{"event": "resume", "step": {step}, "path": "", "note": ""}}\n')
    (run,) = list_runs(tmp_path).runs
    assert run.steps == 12
    assert run.problems[0].startswith("6 lines of metrics.jsonl are left out")


def test_a_disk_that_refuses_one_run_costs_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name)
    read_text = Path.read_text

    def refuse(path: Path, *args: object, **options: object) -> str:
        if path.parent.name == "a":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refuse)
    found = {run.name: run for run in list_runs(tmp_path).runs}
    assert (found["a"].status, found["b"].status) == ("unreadable", "completed")
    assert found["a"].problems[0].endswith("run.json cannot be read: Permission denied")


def test_very_many_runs_are_cut_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        write_run(tmp_path / name)
    assert list_runs(tmp_path).is_whole
    monkeypatch.setattr(runs_module, "MOST_RUNS", 2)
    found = list_runs(tmp_path)
    assert (len(found.runs), found.is_whole) == (2, False)


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in (("nothing", "does not exist"), ("file", "is a file")):
        with pytest.raises(OutputError, match=why):
            list_runs(tmp_path / name)


def test_runs_are_compared_by_the_rows_of_the_step_that_each_kept(tmp_path: Path) -> None:
    for name, loss in (("a", 1.839), ("b", 1.839)):
        root = write_whole_run(tmp_path / name, full_record(tmp_path / name))
        write_rows(root, 8, [loss] * 8)
    (row,) = compare([tmp_path / "a", tmp_path / "b"]).row_by_row
    assert row.paired is not None
    assert row.paired.rows == 8


def test_the_last_step_is_compared_where_that_one_is_kept(tmp_path: Path) -> None:
    record = full_record(tmp_path / "a")
    root = write_whole_run(
        tmp_path / "a", replace(record, summary=replace(record.summary, eval_loss=1.85))
    )
    write_rows(root, 8, [1.839] * 3)
    write_rows(root, 12, [1.85] * 4)
    evaluated = named_run("a", read_run_record(root)).evaluated
    assert evaluated is not None
    assert len(evaluated.sources) == 4


def test_losses_that_are_not_those_of_the_result_are_not_used(tmp_path: Path) -> None:
    root = write_whole_run(tmp_path / "a", full_record(tmp_path / "a"))
    write_rows(root, 8, [1.5] * 3)
    run = named_run("a", read_run_record(root))
    assert (run.evaluated, run.why_not) == (
        None,
        "evaluations/ does not have the losses of the step that is kept",
    )
    (root / "evaluations" / "step-8.json").write_text("[]")
    assert named_run("a", read_run_record(root)).evaluated is None
    add_events(write_run(tmp_path / "b", []), eval_event(0, 2.0))
    assert named_run("b", read_run_record(tmp_path / "b")).why_not


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / place / "run") for place in ("a", "b")]
    assert compare(paths).runs == ("a/run", "b/run")
    assert compare([paths[1], paths[0]]).reference == "b/run"


def test_a_path_inside_of_a_run_is_that_run(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name) for name in ("a", "b")]
    assert compare([paths[0] / "run.json", paths[1]]).runs == ("a", "b")
    with pytest.raises(UserError, match="is named twice"):
        compare([paths[0], paths[0] / "metrics.jsonl"])


def test_a_name_is_looked_for_in_the_directory(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name)
    assert compare([Path("a"), Path("b")], tmp_path).runs == ("a", "b")
    with pytest.raises(OutputError, match="c is not a run directory"):
        compare([Path("a"), Path("c")], tmp_path)


def test_the_verbs_stay_functions_after_they_were_used(tmp_path: Path) -> None:
    """A module of the same name would stand in the place of a verb once it is imported."""
    assert llamafarm.runs(tmp_path).runs == ()
    for verb in ("runs", "compare_runs", "dashboard"):
        assert inspect.isfunction(getattr(llamafarm, verb))
        assert importlib.util.find_spec(f"llamafarm.{verb}") is None


def test_a_directory_that_is_not_ours_to_read_costs_no_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "ours")
    (tmp_path / "theirs").mkdir()
    stat = os.stat

    def refusing(path: str | Path, **others: bool) -> os.stat_result:
        if Path(path).parent == tmp_path / "theirs":
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, **others)

    monkeypatch.setattr(os, "stat", refusing)
    assert find_runs(tmp_path) == (tmp_path / "ours",)
