"""What stands out is found, what does not is left alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llamafarm.models.packed import PackedRow, label_logits
from llamafarm.monitoring.events import Event, FindingEvent
from llamafarm.planning.plan import Every, TrainingPlan
from llamafarm.training.backends.pytorch import gradients
from llamafarm.training.signals import StopRequest
from llamafarm.training.spikes import WINDOW_STEPS, remember, stands_out, usual

from .runs import Killed, Trained, tiny_plan, train_plan
from .test_gradients import POISON, poisoned_data

NUMBERS = st.floats(-1e6, 1e6)
# Whole numbers keep their distances when they are scaled by a power of two.
WHOLE = st.integers(-1000, 1000).map(float)


@given(st.lists(NUMBERS, max_size=15), st.floats(), st.floats(0, 1))
def test_nothing_stands_out_of_fewer_than_16_values(
    history: list[float], value: float, least: float
) -> None:
    assert not stands_out(history, value, least=least)


@given(st.lists(NUMBERS, min_size=16, max_size=64), NUMBERS, NUMBERS, st.floats(1e-3, 1))
def test_what_is_larger_than_something_that_stands_out_does_so_too(
    history: list[float], one: float, other: float, least: float
) -> None:
    small, large = sorted((one, other))
    assert stands_out(history, small, least=least) <= stands_out(history, large, least=least)


@given(
    st.lists(WHOLE, min_size=16, max_size=64),
    WHOLE,
    st.integers(-8, 8),
    st.sampled_from([0.5, 1.0]),
)
def test_the_unit_of_the_values_does_not_matter(
    history: list[float], value: float, power: int, least: float
) -> None:
    unit = 2.0**power
    scaled = stands_out([unit * v for v in history], unit * value, least=unit * least)
    assert scaled == stands_out(history, value, least=least)


@given(st.lists(NUMBERS, min_size=16, max_size=64), st.floats(1e-3, 1))
def test_the_usual_value_never_stands_out(history: list[float], least: float) -> None:
    assert not stands_out(history, usual(history), least=least)
    assert not stands_out(history, min(history[-8:]), least=least)


def test_the_threshold_is_6_robust_deviations_and_at_least_6_of_the_least() -> None:
    flat = [1.0] * 16
    assert not stands_out(flat, 1.0 + 6 * 0.05, least=0.05)
    assert stands_out(flat, 1.0 + 6 * 0.05 + 1e-9, least=0.05)
    wide = [0.0, 2.0] * 8  # median 1, differences of 2
    deviation = 1.4826 * 2 / math.sqrt(2)
    assert not stands_out(wide, 1.0 + 6 * deviation, least=0.05)
    assert stands_out(wide, 1.0 + 6 * deviation + 1e-6, least=0.05)


def test_a_steady_fall_hides_no_spike() -> None:
    falling = [5.0 - 0.15 * step for step in range(24)]
    assert stands_out(falling, 5.0, least=0.05)


@pytest.mark.parametrize("slope", [-0.2, 0.01, 0.2, 5.0])
def test_a_steady_slope_does_not_stand_out(slope: float) -> None:
    values = [slope * step for step in range(40)]
    assert not stands_out(values, slope * 40, least=0.01)


def test_what_was_usual_a_while_ago_does_not_stand_out() -> None:
    history = [0.45, 0.5] * 27 + [0.12, 0.1] * 5
    assert not stands_out(history, 0.47, least=0.01)
    assert stands_out(history[-20:-10] * 2, 0.9, least=0.01)


def test_a_few_earlier_spikes_do_not_hide_the_next_one() -> None:
    assert stands_out([2.0] * 20 + [50.0, 2.0, 50.0, 2.0, 50.0], 50.0, least=0.05)


def test_only_finite_values_of_the_window_are_remembered() -> None:
    history: list[float] = []
    for value in (*range(WINDOW_STEPS + 10), math.nan, math.inf):
        remember(history, float(value))
    assert history == [float(v) for v in range(10, WINDOW_STEPS + 10)]
    assert usual([3.0, 1.0, 2.0]) == 2.0


def long_plan(model_dir: Path, output_dir: Path, steps: int, **changes: Any) -> TrainingPlan:
    """Five steps an epoch, of one micro-batch each."""
    batch = {"total_steps": steps, "micro_batch_size": 8, "accumulation_steps": 1}
    settings: dict[str, Any] = {"batch": batch, "evaluation": {"enabled": False}} | changes
    return tiny_plan(model_dir, output_dir, **settings)


def findings(run: Trained) -> list[FindingEvent]:
    return [e for e in run.events if isinstance(e, FindingEvent)]


def bad_in_one_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """In one step the poisoned row has ten times the loss that it should have."""
    calls = 0

    def label_logits_of(model: Any, row: PackedRow, *, packed: bool) -> Tensor:
        nonlocal calls
        calls += 1
        logits = label_logits(model, row, packed=packed)
        where = (row.input_ids[0] == POISON).nonzero()
        if calls != step or not len(where):
            return logits
        number = next(n for n, (start, end) in enumerate(row.documents) if start <= where[0] < end)
        counts = list(row.label_counts)
        mine = torch.zeros(len(logits), dtype=torch.bool)
        mine[sum(counts[:number]) : sum(counts[: number + 1])] = True
        # All is bet on one word that is not there.
        wrong = torch.zeros_like(logits)
        wrong[:, 511] = 60.0
        return torch.where(mine[:, None], logits + wrong, logits)

    monkeypatch.setattr(gradients, "label_logits", label_logits_of)


def step_of_poison(plan: TrainingPlan, epoch: int) -> int:
    from llamafarm.training.order import DataOrder

    order = DataOrder(37, plan.batch, plan.seed)
    first = epoch * plan.batch.steps_per_epoch + 1
    steps = range(first, first + plan.batch.steps_per_epoch)
    return next(step for step in steps if 5 in order.step(step).rows)


def test_a_row_gone_bad_gives_one_finding_that_names_it_first(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = long_plan(tiny_model_dir, tmp_path / "run", 60)
    step = step_of_poison(plan, epoch=8)
    bad_in_one_step(monkeypatch, step)
    run = train_plan(plan, data=poisoned_data(5))
    (found,) = findings(run)
    assert (found.step, found.rule) == (step, "spike")
    assert found.rows[0] == "rows.jsonl:6"
    assert len(found.rows) == 8
    assert found.text.startswith(f"step {step} stands out: loss ")
    assert "usually 6." in found.text


def test_findings_of_a_run_that_was_killed_are_those_of_an_uninterrupted_one(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = long_plan(tiny_model_dir, tmp_path / "whole", 28, saving={"every": Every(10)})
    step = step_of_poison(plan, epoch=4)
    bad_in_one_step(monkeypatch, step)
    whole = train_plan(plan, data=poisoned_data(5))
    assert [e.step for e in findings(whole)] == [step]
    cut = replace(plan, output_dir=tmp_path / "cut")
    last_save = (step - 1) // 10 * 10

    def kill(event: Event, stop: StopRequest) -> None:
        if event.kind == "step" and getattr(event, "step", None) == last_save + 1:
            raise Killed

    monkeypatch.undo()
    with pytest.raises(Killed):
        train_plan(cut, data=poisoned_data(5), on_event=kill)
    bad_in_one_step(monkeypatch, step - last_save)
    resumed = train_plan(cut, data=poisoned_data(5), resume=True)
    assert findings(resumed) == findings(whole)
    assert resumed.outcome.state.recent_losses == whole.outcome.state.recent_losses
    assert resumed.outcome.state.recent_norms == whole.outcome.state.recent_norms


def test_a_plain_run_raises_no_false_alarm(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert findings(train_plan(long_plan(tiny_model_dir, tmp_path / "run", 60))) == []
