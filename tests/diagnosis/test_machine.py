from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llamafarm.monitoring.events import Event, OutOfMemoryEvent, StepEvent
from tests.monitoring.events_of_a_run import start_event

from .hand_made import finding, healthy, rules, settings


def with_shortage(during: str, **changes: Any) -> list[Event]:
    run = healthy(told=settings(**changes))
    action = "micro-batches of at most 64 tokens"
    return [
        *run[:-2],
        OutOfMemoryEvent(step=40, during=during, tokens=128, action=action),
        *run[-2:],
    ]


@pytest.mark.parametrize("during", ["step", "evaluation"])
def test_memory_that_ran_out_is_pressure(during: str) -> None:
    found = finding(with_shortage(during), "memory_pressure")
    assert found.text == (
        "memory ran out 1 time, last in step 40: micro-batches of at most 64 tokens"
    )
    assert found.confidence == 1.0
    assert found.patch == {
        "training_args.per_device_train_batch_size": 2,
        "training_args.gradient_accumulation_steps": 4,
    }


def test_a_save_that_found_no_memory_is_no_reason_for_a_smaller_batch() -> None:
    assert "memory_pressure" not in rules(with_shortage("save"))


def test_one_row_at_a_time_leaves_gradient_checkpointing() -> None:
    found = finding(with_shortage("step", micro_batch_size=1), "memory_pressure")
    assert found.patch == {"training_args.gradient_checkpointing": True}
    both = with_shortage("step", micro_batch_size=1, gradient_checkpointing=True)
    assert finding(both, "memory_pressure").patch == {}


@pytest.mark.parametrize(
    ("device", "limit", "found"),
    [
        ("cuda:0", (1 << 30) + 1, True),
        ("mps", (1 << 30) + 1, True),
        ("cpu", (1 << 30) + 1, False),
        ("cuda:0", 1 << 31, False),
        ("cuda:0", 0, False),
    ],
)
def test_an_accelerator_that_is_nearly_full_is_pressure(
    device: str, limit: int, found: bool
) -> None:
    told, *rest = healthy(told=settings(memory_limit_bytes=limit))
    run = [told, replace(start_event(), device=device), *rest]
    assert ("memory_pressure" in rules(run)) == found


def test_steps_that_wait_for_their_rows_are_slow() -> None:
    found = finding(healthy(data_seconds=2.0), "slow_training")
    assert found.step == 10, "told while the run goes on"
    assert found.text == "50 % of the time steps wait for their rows (0:20 of 0:40)"
    assert found.confidence == 1.0
    assert found.patch == {"training_args.dataloader_num_workers": 2}


def test_waiting_that_costs_nothing_is_not_told() -> None:
    assert "slow_training" not in rules(healthy(data_seconds=0.05, step_seconds=0.05))


def test_one_long_wait_is_no_slow_feed() -> None:
    run = [
        replace(e, data_seconds=100.0) if isinstance(e, StepEvent) and e.step == 1 else e
        for e in healthy()
    ]
    assert "slow_training" not in rules(run)


def test_workers_are_not_raised_for_ever() -> None:
    assert (
        finding(healthy(data_seconds=2.0, told=settings(num_workers=8)), "slow_training").patch
        == {}
    )


def test_a_device_that_computes_less_than_half_of_the_time_wants_more_rows() -> None:
    found = finding(healthy(device_utilisation=30.0), "slow_training")
    assert found.text == "the device computes 30 % of the time; above 80 % is efficient"
    assert found.patch == {
        "training_args.per_device_train_batch_size": 8,
        "training_args.gradient_accumulation_steps": 1,
    }


@pytest.mark.parametrize("utilisation", [None, 60.0])
def test_where_nothing_measures_the_device_nothing_is_said(utilisation: float | None) -> None:
    assert "slow_training" not in rules(healthy(device_utilisation=utilisation))


def test_without_times_nothing_is_said() -> None:
    assert "slow_training" not in rules(healthy(step_seconds=0.0, data_seconds=0.0))
