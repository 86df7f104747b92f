from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from llamafarm.errors import OutputError
from llamafarm.monitoring.comparison import Comparison
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.run_record import RunRecord, find_run, read_run_record
from llamafarm.monitoring.summary import summarise

from .events_of_a_run import step_event
from .report.records import comparison, full_record
from .run_directories import EVENTS, is_going_on, write_run


def test_what_a_run_wrote_is_read_back(tmp_path: Path) -> None:
    root = write_run(tmp_path)
    (root / "comparison.json").write_text(json.dumps(to_jsonable(comparison())))
    (root / "summary.json").write_text(json.dumps(summarise(EVENTS).to_json()))
    (root / "strategy.yaml").write_text("tiny: {}\n")
    written, found = full_record(root), read_run_record(root)
    assert found.unread == ()
    for name in ("id", "status", "title", "started", "resumed", "seed", "versions", "decisions"):
        assert getattr(found, name) == getattr(written, name)
    for name in ("model", "data", "hardware", "forecast", "actual", "strategy_yaml", "comparison"):
        assert getattr(found, name) == getattr(written, name)
    assert list(found.events) == EVENTS
    assert found.summary == summarise(EVENTS)


def test_a_run_that_is_going_on_has_a_record(tmp_path: Path) -> None:
    root = write_run(tmp_path, EVENTS[:5], status="running", actual=None)
    with (root / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"event": "ste')
    with is_going_on(root):
        record = read_run_record(root)
    assert (record.status, record.actual, record.unread) == ("running", None, ())
    assert record.summary.status == "running"
    assert list(record.events) == EVENTS[:5]


@pytest.mark.parametrize("lock", [True, False])
def test_a_run_that_died_without_a_word_is_not_running(tmp_path: Path, lock: bool) -> None:
    root = write_run(tmp_path, EVENTS[:5], status="running")
    if lock:
        (root / ".lock").write_text("process 1 on a-machine\n")
    assert read_run_record(root).status == "stopped"


def test_what_another_version_wrote_is_left_out_and_told(tmp_path: Path) -> None:
    root = write_run(tmp_path, data={"rows": 3}, forecast={"memory": "2 GB"}, later="more")
    with (root / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"event": "telepathy", "step": 3}\n')
    (root / "summary.json").write_text('{"steps": 3}')
    (root / "comparison.json").write_text("[]")
    record = read_run_record(root)
    assert (record.data, record.forecast, record.comparison) == (None, None, None)
    assert record.decisions
    assert record.summary == summarise(EVENTS)
    told = "\n".join(record.unread)
    assert "1 line of metrics.jsonl is left out, line 19: unknown event 'telepathy'" in told
    for name in ("run.json: data", "run.json: forecast", "summary.json", "comparison.json"):
        assert name in told


def test_a_run_json_that_was_cut_off_still_leaves_a_record(tmp_path: Path) -> None:
    root = write_run(tmp_path)
    (root / "run.json").write_text('{"id": "x", ')
    record = read_run_record(root)
    assert record.unread == ("run.json is not a JSON object",)
    assert record.name == root.name
    assert record.summary.steps == 12


def test_a_run_that_goes_on_again_is_not_told_by_the_summary_of_how_it_was_stopped(
    tmp_path: Path,
) -> None:
    root = write_run(tmp_path, EVENTS[:5], status="running")
    (root / "summary.json").write_text(json.dumps(summarise(EVENTS).to_json()))
    with is_going_on(root):
        assert read_run_record(root).summary == summarise(EVENTS[:5])
    (root / "run.json").write_text('{"status": "interrupted"}')
    assert read_run_record(root).summary == summarise(EVENTS)


def test_the_events_of_a_run_that_has_a_summary_can_be_left_out(tmp_path: Path) -> None:
    root = write_run(tmp_path)
    assert read_run_record(root, need_events=False).events == tuple(EVENTS)
    (root / "summary.json").write_text(json.dumps(summarise(EVENTS).to_json()))
    record = read_run_record(root, need_events=False)
    assert (record.events, record.summary) == ((), summarise(EVENTS))


@pytest.mark.parametrize(
    "text", ['{"steps": "many"}', '{"findings": 3}', "[" * 100_000, '{"status": []}', "null"]
)
def test_no_summary_that_is_wrong_keeps_a_run_from_being_read(tmp_path: Path, text: str) -> None:
    root = write_run(tmp_path)
    good = summarise(EVENTS).to_json()
    wrong = json.dumps({**good, **json.loads(text)}) if text.endswith("}") else text
    (root / "summary.json").write_text(wrong)
    record = read_run_record(root)
    assert record.summary == summarise(EVENTS)
    assert [told.split(" ")[0].rstrip(":") for told in record.unread] == ["summary.json"]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    root = write_run(tmp_path)
    (root / "metrics.jsonl").unlink()
    os.mkfifo(root / "metrics.jsonl")
    (root / "comparison.json").mkdir()
    record = read_run_record(root)
    assert record.events == ()
    assert set(record.unread) == {
        "metrics.jsonl is not a file",
        "comparison.json is not a file",
    }


def test_a_run_that_goes_on_has_taken_the_time_up_to_its_last_step(tmp_path: Path) -> None:
    root = write_run(tmp_path, [*EVENTS[:3], step_event(7)], status="running")
    assert read_run_record(root).seconds == 14.0
    assert read_run_record(write_run(tmp_path / "whole")).seconds == 61.0


@pytest.mark.parametrize("inside", ["", "run.json", "plots", "plots/loss.png"])
def test_a_run_is_found_from_within(tmp_path: Path, inside: str) -> None:
    root = write_run(tmp_path / "run")
    (root / "plots").mkdir()
    (root / "plots" / "loss.png").touch()
    assert find_run(root / inside) == root


def test_what_is_no_run_is_refused_with_what_there_is(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with pytest.raises(OutputError) as refused:
        read_run_record(tmp_path)
    assert "has no run.json" in refused.value.summary
    assert refused.value.hint == "there are runs in it: one, two"
    with pytest.raises(OutputError, match="there is no such directory"):
        find_run(tmp_path / "one" / "nothing")


def test_the_comparison_is_what_the_file_has(tmp_path: Path) -> None:
    root = write_run(tmp_path)
    (root / "comparison.json").write_text('{"rows": 2, "models": [], "later": 1}')
    found: RunRecord = read_run_record(root)
    assert found.comparison == Comparison(2, ())


@pytest.mark.parametrize(("name", "size"), [("metrics.jsonl", 600), ("summary.json", 200)])
def test_what_is_far_too_large_is_not_read(tmp_path: Path, name: str, size: int) -> None:
    root = write_run(tmp_path)
    with (root / name).open("ab") as file:
        file.truncate(size * 1024**2)
    (told,) = read_run_record(root).unread
    assert told.startswith(f"{name} is larger than")


def test_a_pipe_for_a_lock_is_not_waited_for(tmp_path: Path) -> None:
    root = write_run(tmp_path, EVENTS[:5], status="running")
    os.mkfifo(root / ".lock")
    assert read_run_record(root).status == "stopped"


def test_a_name_that_is_too_long_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no such directory"):
        find_run(tmp_path / ("x" * 300))
