from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm.errors import UserError
from llamafarm.monitoring.diagnosis import Diagnosis
from llamafarm.monitoring.trackers import sink as trackers
from llamafarm.monitoring.trackers.tracker import RunFacts
from llamafarm.training.run_directory import open_run_directory
from llamafarm.training.sinks import all_sinks, run_facts
from tests.training.runs import tiny_plan, write_tiny_model


def test_a_tracker_that_refuses_the_run_leaves_no_other_one_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[trackers._Follower] = []

    def takes(follower: trackers._Follower, facts: RunFacts) -> bool:
        started.append(follower)
        return len(started) == 1

    monkeypatch.setattr(trackers._Follower, "takes", takes)
    plan = tiny_plan(write_tiny_model(tmp_path / "model"), tmp_path / "run")
    plan = replace(plan, logging=replace(plan.logging, report_to=("mlflow", "trackio")))
    with open_run_directory(plan.output_dir, resume=False, overwrite=False) as directory:
        facts = run_facts(directory, plan, "id", "{}", resumed=False)
        with (
            pytest.raises(UserError, match="does not take the run"),
            all_sinks(directory, plan, facts, (), Diagnosis()),
        ):
            pass
    assert [follower.has_ended for follower in started] == [True, True]
