"""Less free memory today must not keep a run from going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm.planning.plan import TrainingPlan
from llamafarm.planning.resolved_strategy import resolved_strategy
from llamafarm.planning.resumed import as_begun
from llamafarm.strategy.dump import to_yaml
from llamafarm.strategy.model import Strategy, TrainingArgs
from llamafarm.training.identity import identity_differences, run_identity
from tests.hardware.recorded import LAPTOP
from tests.planning.building import GIB, LLAMA_1B, plan_for

BEGUN = Strategy(id="mine")


def planned(strategy: Strategy, memory_gib: float) -> TrainingPlan:
    cpu = replace(LAPTOP.cpu, memory_available_bytes=int(memory_gib * GIB))
    return plan_for(strategy, replace(LAPTOP, cpu=cpu), LLAMA_1B)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "strategy.yaml"
    file.write_text(to_yaml(resolved_strategy(BEGUN, planned(BEGUN, 14))), encoding="utf-8")
    return file


def test_the_plan_is_the_one_it_began_with(file: Path) -> None:
    first = run_identity(planned(BEGUN, 14))
    assert identity_differences(first, run_identity(planned(BEGUN, 8)))
    assert not identity_differences(first, run_identity(planned(as_begun(BEGUN, file), 8)))


def test_what_somebody_writes_now_is_not_overruled(file: Path) -> None:
    now = Strategy(id="mine", training_args=TrainingArgs(per_device_train_batch_size=3))
    assert as_begun(now, file).training_args.per_device_train_batch_size == 3


def test_without_a_readable_strategy_nothing_is_taken(tmp_path: Path) -> None:
    (tmp_path / "strategy.yaml").write_text("mine: [", encoding="utf-8")
    assert as_begun(BEGUN, tmp_path / "strategy.yaml") == BEGUN
    assert as_begun(BEGUN, tmp_path / "absent.yaml") == BEGUN
