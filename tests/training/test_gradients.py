"""A step is made whole, or leaves no trace."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from llamafarm.data.tokenized import ListRows, PreparedData
from llamafarm.errors import Interrupted, RunError
from llamafarm.models.packed import PackedRow, label_logits, pack
from llamafarm.monitoring.events import NonFiniteEvent, StepEvent
from llamafarm.training.backends.pytorch import gradients, loop
from llamafarm.training.backends.pytorch.batches import StepBatch
from llamafarm.training.backends.pytorch.gradients import GradientMaker, Gradients, StepGivenUp
from llamafarm.training.checkpoint import STATE_FILE, list_checkpoints
from llamafarm.training.signals import StopRequest

from .runs import Trained, random_rows, tiny_data, tiny_plan, train_plan

LONG_STEPS = {"micro_batch_size": 1, "accumulation_steps": 8}
POISON = 300


def test_a_signal_in_a_long_accumulation_gives_the_step_up_and_the_resumed_run_is_bitwise_equal(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "whole", batch=LONG_STEPS)
    whole = train_plan(plan)
    cut = replace(plan, output_dir=tmp_path / "cut")
    at = 6 * 8 + 4  # in the middle of step 7
    calls, given_up = 0, []
    stops: list[StopRequest] = []

    def counted(model: Any, row: PackedRow, *, packed: bool) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == at:  # the grace period is over before the rest can be done
            stops[0].received, stops[0]._deadline = signal.SIGTERM, 0.0
        given_up.append(calls)
        return label_logits(model, row, packed=packed)

    with monkeypatch.context() as patch:
        patch.setattr(gradients, "label_logits", counted)
        with pytest.raises(Interrupted) as stopped:
            train_plan(cut, on_event=lambda event, stop: stops.append(stop))
    assert given_up[-1] == at
    assert "after step 6 of 12" in stopped.value.summary
    newest = list_checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    assert newest.step == 6
    saved = json.loads((newest.path / STATE_FILE).read_text())
    assert saved["global_step"] == 6
    resumed = train_plan(cut, resume=True)
    assert resumed.weights_hash == whole.weights_hash
    assert resumed.losses == whole.losses[6:]


def test_a_signal_with_time_left_finishes_the_step(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    stops: list[StopRequest] = []

    def counted(model: Any, row: PackedRow, *, packed: bool) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6 * 8 + 4:
            stops[0].received, stops[0]._deadline = signal.SIGTERM, math.inf
        return label_logits(model, row, packed=packed)

    monkeypatch.setattr(gradients, "label_logits", counted)
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", batch=LONG_STEPS)
    with pytest.raises(Interrupted, match="after step 7 of 12"):
        train_plan(plan, on_event=lambda event, stop: stops.append(stop))


def test_a_step_that_is_given_up_leaves_the_parameters_without_gradients() -> None:
    maker, batch = a_maker(), a_batch((0,), (1,), (2,))
    asked: list[float] = []

    def after_two(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) == 2

    with pytest.raises(StepGivenUp):
        maker.make(batch, after_two)
    assert len(asked) == 2
    assert all(seconds > 0 for seconds in asked)
    assert all(p.grad is None for p in maker._parameters)


def test_the_first_micro_batch_is_never_given_up() -> None:
    maker = a_maker()
    assert isinstance(maker.make(a_batch((0, 1)), lambda seconds: True), Gradients)


def test_gradients_are_of_the_mean_over_all_trained_tokens_of_the_step() -> None:
    maker, batch = a_maker(), a_batch((0,), (1, 2))
    made = maker.make(batch)
    assert isinstance(made, Gradients)
    (parameter,) = maker._parameters
    (gradient,) = torch.autograd.grad(
        sum(losses_of(parameter, row).sum() for row in batch.rows) / batch.num_labels, parameter
    )
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.grad, gradient)
    assert made.norm == pytest.approx(float(gradient.norm()))
    assert made.loss_sum == pytest.approx(
        sum(float(losses_of(parameter.detach(), row).sum()) for row in batch.rows)
    )


def test_rows_are_ordered_by_their_mean_loss() -> None:
    batch = a_batch((4, 2), (7,))
    counts = [row.label_counts for row in batch.rows]
    made = Gradients(
        0.0,
        0.0,
        batch,
        (
            torch.cat([torch.full((counts[0][0],), 1.0), torch.full((counts[0][1],), 3.0)]),
            torch.full(counts[1], 2.0),
        ),
    )
    assert made.rows_by_loss() == (2, 7, 4)


def test_the_row_whose_loss_is_not_finite_is_named_and_no_other(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda logits: logits * math.nan)
    plan = tiny_plan(tiny_model_dir, tmp_path / "run")
    with pytest.raises(RunError, match=r"the loss of step \d+ is not finite") as failed:
        train_plan(plan, data=poisoned_data(5))
    assert "At fault: rows.jsonl:6" in failed.value.summary
    assert failed.value.summary.count("rows.jsonl") == 1


def test_the_row_whose_gradient_alone_is_not_finite_is_named_and_no_other(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, _NoGradient.apply)
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", on_nonfinite="skip")
    run = train_plan(plan, data=poisoned_data(5))
    told = [e for e in run.events if isinstance(e, NonFiniteEvent)]
    assert [(e.what, e.rows) for e in told] == [("gradient", ("rows.jsonl:6",))] * 3
    assert run.outcome.state.nonfinite_steps == 3


def test_where_only_the_sum_is_not_finite_all_rows_of_the_step_are_named(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_together(model: Any, row: PackedRow, *, packed: bool) -> Tensor:
        logits = label_logits(model, row, packed=packed)
        return logits * math.nan if len(row.documents) > 1 else logits

    monkeypatch.setattr(gradients, "label_logits", only_together)
    with pytest.raises(RunError, match="No row is so by itself; rows of that step") as failed:
        train_plan(tiny_plan(tiny_model_dir, tmp_path / "run"))
    assert failed.value.summary.count("rows.jsonl:") == 8


def test_a_row_that_does_not_fit_alone_is_not_accused() -> None:
    maker, batch = a_maker(), a_batch((0,), (1,))

    def refuses(index: int) -> PackedRow:
        row = pack(ROWS, (index,))
        return replace(row, input_ids=row.input_ids.new_full((1, 1), -1))

    assert maker.rows_at_fault(batch, refuses) == ()


def test_looking_for_the_row_at_fault_changes_no_later_step(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(
        tiny_model_dir,
        tmp_path / "skipped",
        on_nonfinite="skip",
        optimizer={"neftune_noise_alpha": 5.0},
    )
    with monkeypatch.context() as patch:
        poison(patch, lambda logits: logits * math.nan)
        skipped = train_plan(plan, data=poisoned_data(5))
    steps = {e.step for e in skipped.events if isinstance(e, NonFiniteEvent)}
    left_out = left_out_run(replace(plan, output_dir=tmp_path / "left-out"), steps, monkeypatch)
    assert len(steps) == 3
    assert left_out.weights_hash == skipped.weights_hash


def test_a_skipped_loss_does_not_stop_a_gradient_scaler(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16 on a GPU, as far as a CPU can follow."""
    new_accelerator = loop.new_accelerator

    def scaling(plan: Any) -> Any:
        made = new_accelerator(plan)
        made.scaler, made.native_amp = torch.amp.GradScaler("cpu", init_scale=4.0), True
        made.state._mixed_precision = "fp16"
        return made

    monkeypatch.setattr(loop, "new_accelerator", scaling)
    poison(monkeypatch, lambda logits: logits * math.nan)
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", on_nonfinite="skip")
    run = train_plan(plan, data=poisoned_data(5))
    told = [e for e in run.events if isinstance(e, NonFiniteEvent)]
    assert [(e.what, e.rows) for e in told] == [("loss", ("rows.jsonl:6",))] * 3
    assert run.outcome.state.step == 12


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * math.nan


def poison(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor]) -> None:
    """Spoil the logits of every row with the poisoned token in it."""

    def poisoned(model: Any, row: PackedRow, *, packed: bool) -> Tensor:
        logits = label_logits(model, row, packed=packed)
        return spoil(logits) if bool((row.input_ids == POISON).any()) else logits

    monkeypatch.setattr(gradients, "label_logits", poisoned)


def poisoned_data(index: int) -> PreparedData:
    """One row holds the poisoned token."""
    data = tiny_data()
    rows = [
        (data.train.input_ids(i).tolist(), data.train.trained(i).tolist())
        for i in range(len(data.train))
    ]
    rows[index][0][-2] = POISON
    return PreparedData(ListRows(rows, "rows.jsonl"), data.eval, data.report)


def left_out_run(plan: Any, steps: set[int], monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The same run where the optimizer simply does nothing in some steps."""
    taken = 0
    take_step = torch.optim.AdamW.step

    def step(self: Any, closure: Any = None) -> Any:
        nonlocal taken
        taken += 1
        return None if taken in steps else take_step(self, closure)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        run = train_plan(plan, data=poisoned_data(5))
    assert len([e for e in run.events if isinstance(e, StepEvent)]) == 12
    return run


ROWS = random_rows(8, 3)


def a_batch(*groups: tuple[int, ...]) -> StepBatch:
    return StepBatch(
        1, 0.0, groups, tuple(pack(ROWS, group, share_prefix=False) for group in groups)
    )


class _Table(torch.nn.Module):
    """A model that knows only the last token: logits are a row of its table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(512, 512) * 0.1)

    def forward(self, input_ids: Tensor, logits_to_keep: Tensor, **other: Any) -> Any:
        if int(input_ids.min()) < 0:
            raise MemoryError
        return SimpleNamespace(logits=self.table[input_ids[:, logits_to_keep]])


def a_maker() -> GradientMaker:
    from accelerate import Accelerator

    model = _Table()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return GradientMaker(
        model,
        optimizer,
        Accelerator(cpu=True),
        parameters=list(model.parameters()),
        seed=1,
        packed=True,
        label_smoothing=0.0,
        max_grad_norm=0.0,
        noise=None,
    )


def losses_of(table: Tensor, row: PackedRow) -> Tensor:
    logits = table[row.input_ids[0, row.label_positions]]
    return torch.nn.functional.cross_entropy(logits, row.labels, reduction="none")
