"""Each tracker's own client takes a run, and gives it back."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import UserError
from llamafarm.monitoring.events import Event, FindingEvent, ResumeEvent
from llamafarm.monitoring.metrics_file import MetricsFile
from llamafarm.monitoring.trackers import TrackerSink, require_trackers
from llamafarm.monitoring.trackers import sink as sinks
from llamafarm.monitoring.trackers.registry import TRACKERS
from llamafarm.monitoring.trackers.tracker import RunFacts

from ..events_of_a_run import end_event, eval_event, start_event, step_event

FINDING = FindingEvent(step=2, rule="overfitting", text="the eval loss turned")
FIRST = (start_event(), eval_event(0, 2.5), step_event(1, 2.25), step_event(2, 2.0), FINDING)
THEN = (eval_event(2, 1.75, best=True, bleu=0.5), end_event())


def needs(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(TRACKERS[name].package) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the machine, and nothing is left on it."""
    for name in [name for name in os.environ if name.startswith(("WANDB", "MLFLOW", "TRACKIO"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))


def facts(directory: Path, *, resumed: bool = False) -> RunFacts:
    file = directory / "metrics.jsonl"
    size = file.stat().st_size if file.exists() else 0
    config = {"training_args.learning_rate": 1e-3, "method.type": "lora", "flag": True}
    return RunFacts("first-1-ab12", "first", str(directory), resumed, size, config)


def tell(name: str, directory: Path, events: tuple[Event, ...], *, resumed: bool = False) -> str:
    """As a run does; what the trouble was."""
    directory.mkdir(exist_ok=True)
    metrics = MetricsFile(directory / "metrics.jsonl")
    sink = TrackerSink(name, facts(directory, resumed=resumed), directory / "metrics.jsonl")
    for event in events:
        metrics.handle(event)
        sink.handle(event)
    metrics.close()
    sink.close()
    sink.close()
    return sink.trouble


@needs("mlflow")
def test_mlflow_has_the_numbers_the_values_and_the_end_also_after_a_resume(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    assert tell("mlflow", tmp_path / "run", FIRST) == ""
    client = MlflowClient()
    place = client.get_experiment_by_name("llamafarm").experiment_id
    (run,) = client.search_runs([place])
    assert run.info.status == "FAILED"  # it did not say how it ended

    again = (ResumeEvent(step=2, path="", note=""), *THEN)
    assert tell("mlflow", tmp_path / "run", again, resumed=True) == ""
    (run,) = client.search_runs([place])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["training_args.learning_rate"] == "0.001"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 2.25), (2, 2.0)]
    history = client.get_metric_history(run.info.run_id, "eval/loss")
    assert [(m.step, m.value) for m in history] == [(0, 2.5), (2, 1.75)]
    assert run.data.metrics["eval/bleu"] == 0.5
    assert run.data.metrics["best_step"] == 2
    assert run.data.tags["finding/overfitting"] == FINDING.text


@needs("trackio")
def test_trackio_has_the_numbers_under_the_runs_id(tmp_path: Path) -> None:
    assert tell("trackio", tmp_path / "run", (*FIRST, *THEN)) == ""
    with sqlite3.connect(tmp_path / "trackio" / "llamafarm.db") as connection:
        rows = connection.execute("select run_name, step, metrics from metrics").fetchall()
    assert {name for name, _, _ in rows} == {"first-1-ab12"}
    losses = [
        (step, found["train/loss"])
        for _, step, text in rows
        if "train/loss" in (found := json.loads(text))
    ]
    assert losses == [(1, 2.25), (2, 2.0)]


@needs("wandb")
def test_wandb_has_the_numbers_the_values_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tell("wandb", tmp_path / "run", (*FIRST, *THEN)) == ""
    (file,) = (tmp_path / "run").rglob("run-*.wandb")
    assert "first-1-ab12" in file.name
    found = list(wandb_records(file))
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in r.item}
        for r in (record.history for record in found if record.HasField("history"))
    ]
    losses = [(h["global_step"], h["train/loss"]) for h in history if "train/loss" in h]
    assert losses == [(1, 2.25), (2, 2.0)]
    assert [h["eval/loss"] for h in history if "eval/loss" in h] == [2.5, 1.75]
    (start,) = [record.run for record in found if record.HasField("run")]
    assert (start.project, start.display_name) == ("llamafarm", "first")
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in found
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert summary["status"] == "completed"
    assert summary["finding/overfitting"] == FINDING.text


def wandb_records(file: Path) -> Iterator[Any]:
    """LevelDB's log format behind a header of seven bytes; small files are one block."""
    from wandb.proto import wandb_internal_pb2

    content = file.read_bytes()
    assert len(content) < 2**15
    place, whole = 7, b""
    while place + 7 <= len(content):
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full one, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


@needs("wandb")
def test_a_tracker_that_nobody_is_logged_in_to_is_an_error_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="API key") as caught:
        tell("wandb", tmp_path / "run", FIRST)
    assert "wandb login" in (caught.value.hint or "")


@needs("wandb")
def test_a_resumed_run_goes_on_without_a_tracker_that_refuses_it(tmp_path: Path) -> None:
    trouble = tell("wandb", tmp_path / "run", FIRST, resumed=True)
    assert "Weights & Biases is not told of this run" in trouble
    assert "API key" in trouble


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="package mlflow is not installed") as caught:
        require_trackers(["mlflow"])
    assert "llamafarm[mlflow]" in (caught.value.hint or "")


def test_a_run_that_is_stopped_while_a_tracker_starts_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[sinks._Follower] = []

    def stopped(follower: sinks._Follower, facts: RunFacts) -> bool:
        started.append(follower)
        raise KeyboardInterrupt

    monkeypatch.setattr(sinks._Follower, "takes", stopped)
    with pytest.raises(KeyboardInterrupt):
        tell("mlflow", tmp_path / "run", FIRST)
    (follower,) = started
    assert follower.has_ended
