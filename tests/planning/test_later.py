"""A setting whose part is not in this version is named."""

from __future__ import annotations

from typing import Any

import pytest

from llamafarm.strategy.model import (
    DatasetSection,
    Monitoring,
    Strategy,
    TrainingArgs,
)
from tests.planning.building import plan_for, remarks


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("training_args.push_to_hub", {"training_args": TrainingArgs(push_to_hub=True)}),
        (
            "training_args.ddp_find_unused_parameters",
            {"training_args": TrainingArgs(ddp_find_unused_parameters=True)},
        ),
        ("distributed", {"distributed": {"num_gpus": 2}}),
    ],
)
def test_each_such_setting_is_warned_about_by_name(path: str, parts: dict[str, Any]) -> None:
    plan = plan_for(Strategy(id="s", **parts))
    (text,) = remarks(plan, path)
    assert path in text
    assert "this version does not" in text


def test_nothing_is_said_when_nothing_was_written() -> None:
    assert plan_for(Strategy(id="s")).warnings == ()


def test_the_seeds_multi_gpu_snippet_changes_nothing_and_is_silent() -> None:
    args = TrainingArgs(ddp_find_unused_parameters=False, dataloader_num_workers=4)
    plan = plan_for(Strategy(id="s", training_args=args))
    assert plan.warnings == ()
    assert plan.batch.num_workers == 4


def test_a_test_file_is_noticed() -> None:
    plan = plan_for(Strategy(id="s", dataset=DatasetSection(test_file="test.jsonl")))
    (text,) = remarks(plan, "dataset.test_file", "notice")
    assert "llamafarm evaluate" in text


def test_metrics_cannot_be_switched_off() -> None:
    plan = plan_for(Strategy(id="s", monitoring=Monitoring(track_training_metrics=False)))
    assert remarks(plan, "monitoring.track_training_metrics", "notice")
