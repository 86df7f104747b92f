from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from llamafarm.errors import OutputError
from llamafarm.monitoring.comparison import Comparison
from llamafarm.monitoring.events import Event
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.metrics_file import event_line
from llamafarm.monitoring.run_record import RunRecord, find_run, read_run_record
from llamafarm.monitoring.summary import summarise

from .events_of_a_run import events_of_a_run
from .report.records import comparison, full_record

EVENTS = events_of_a_run()


def write_run(root: Path, events: list[Event] | None = None, **changes: object) -> Path:
    """A run directory as a run leaves it. changes: to run.json; None: without that key."""
    root.mkdir(exist_ok=True)
    record = full_record(root)
    names = (
        "id status strategy title command started seed versions decisions model data hardware "
        "forecast actual"
    )
    started = record.started
    assert started is not None
    values = {name: getattr(record, name) for name in names.split()}
    values |= {
        "started": started.isoformat(),
        "resumed": [time.isoformat() for time in record.resumed],
        **changes,
    }
    kept = {name: value for name, value in values.items() if value is not None}
    (root / "run.json").write_text(json.dumps(to_jsonable(kept)))
    lines = [event_line(event) for event in (EVENTS if events is None else events)]
    (root / "metrics.jsonl").write_bytes(b"".join(lines))
    return root


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
    with (root / "metrics.jsonl").open("a") as metrics, (root / ".lock").open("w") as lock:
        metrics.write('{"event": "ste')
        fcntl.flock(lock, fcntl.LOCK_EX)
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
