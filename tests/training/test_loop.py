"""The loop's promises, as equalities on a tiny model."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llamafarm.data.tokenized import ListRows, PreparedData
from llamafarm.errors import Interrupted, RunError
from llamafarm.monitoring.events import (
    CheckpointEvent,
    EarlyStopEvent,
    EvalEvent,
    EvalProgressEvent,
    Event,
    NonFiniteEvent,
    StepEvent,
)
from llamafarm.planning.plan import Every
from llamafarm.training.backends.pytorch import loop
from llamafarm.training.checkpoint import list_checkpoints
from llamafarm.training.signals import StopRequest

from .runs import Trained, hash_of, stock_loss, tiny_data, tiny_plan, train_plan

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_curve.json"
TOTAL_STEPS = 12


@pytest.fixture(scope="module")
def uninterrupted(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_plan(tiny_plan(tiny_model_dir, tmp_path_factory.mktemp("whole") / "run"))


def stop_at(step: int, kind: str = "step") -> object:
    def on_event(event: Event, stop: StopRequest) -> None:
        if event.kind == kind and getattr(event, "step", None) == step:
            stop.received = signal.SIGTERM

    return on_event


def test_two_runs_are_bitwise_equal(
    uninterrupted: Trained, tiny_model_dir: Path, tmp_path: Path
) -> None:
    again = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run"))
    assert again.weights_hash == uninterrupted.weights_hash
    assert again.losses == uninterrupted.losses


def test_another_seed_gives_another_run(
    uninterrupted: Trained, tiny_model_dir: Path, tmp_path: Path
) -> None:
    other = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", seed=43))
    assert other.weights_hash != uninterrupted.weights_hash


def test_the_loss_curve_is_the_recorded_one(uninterrupted: Trained) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert uninterrupted.losses == pytest.approx(golden["losses"], abs=1e-3)
    assert uninterrupted.eval_losses == pytest.approx(golden["eval_losses"], abs=1e-3)


def test_training_reaches_the_weights_and_lowers_the_loss(uninterrupted: Trained) -> None:
    assert uninterrupted.losses[-1] < uninterrupted.losses[0] - 0.01
    assert uninterrupted.outcome.state.best_eval_loss < uninterrupted.eval_losses[0]


@pytest.mark.parametrize("step", range(1, TOTAL_STEPS))
def test_stopping_at_any_step_and_resuming_is_bitwise_equal(
    step: int, uninterrupted: Trained, tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run")
    with pytest.raises(Interrupted) as stopped:
        train_plan(plan, on_event=stop_at(step))
    assert stopped.value.exit_code == 143
    resumed = train_plan(plan, resume=True)
    assert resumed.weights_hash == uninterrupted.weights_hash
    assert resumed.outcome.state.best_step == uninterrupted.outcome.state.best_step
    assert resumed.losses == uninterrupted.losses[step:]
    assert resumed.outcome.state.tokens == uninterrupted.outcome.state.tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": None},
        {"adapter": {"use_dora": True}},
        {"optimizer": {"neftune_noise_alpha": 5.0}},
        {"optimizer": {"name": "adafactor"}},
        {"optimizer": {"name": "sgd", "scheduler": "linear"}},
        {"optimizer": {"scheduler": "cosine_with_restarts", "scheduler_kwargs": {"num_cycles": 2}}},
        {"batch": {"micro_batch_size": 2, "accumulation_steps": 4, "num_workers": 2}},
        {"evaluation": {"patience": 2}},
        {"gradient_checkpointing": True},
        {"adapter": {"modules_to_save": ("lm_head",)}},
    ],
    ids=lambda changes: json.dumps(changes)[:50],
)
def test_every_kind_of_run_resumes_bitwise(
    changes: dict[str, object], tiny_model_dir: Path, tmp_path: Path
) -> None:
    whole = train_plan(tiny_plan(tiny_model_dir, tmp_path / "whole", **dict(changes)))
    plan = tiny_plan(tiny_model_dir, tmp_path / "cut", **dict(changes))
    with pytest.raises(Interrupted):
        train_plan(plan, on_event=stop_at(6))
    assert train_plan(plan, resume=True).weights_hash == whole.weights_hash


def test_a_stop_inside_an_evaluation_repeats_that_evaluation_on_resume(
    uninterrupted: Trained, tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run")
    with pytest.raises(Interrupted):
        train_plan(plan, on_event=stop_at(8, kind="eval_progress"))
    resumed = train_plan(plan, resume=True)
    evaluated = [e.step for e in resumed.events if isinstance(e, EvalEvent)]
    assert evaluated == [8, 12]
    assert resumed.weights_hash == uninterrupted.weights_hash


def test_a_kill_between_checkpoints_replays_the_same_steps(
    uninterrupted: Trained, tiny_model_dir: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(event: Event, stop: StopRequest) -> None:
        if isinstance(event, StepEvent) and event.step == 7:
            raise Killed

    plan = tiny_plan(tiny_model_dir, tmp_path / "run")
    with pytest.raises(Killed):
        train_plan(plan, on_event=kill)
    assert [c.step for c in list_checkpoints(tmp_path / "run" / "checkpoints")][-1] == 5
    assert train_plan(plan, resume=True).weights_hash == uninterrupted.weights_hash


@pytest.mark.parametrize("method", [{}, None], ids=["lora", "full"])
def test_accumulation_does_not_change_the_training(
    method: dict[str, object] | None, tiny_model_dir: Path, tmp_path: Path
) -> None:
    adapter = method if method is None else {"dropout": 0.0}
    finished = {}
    for micro, accumulation in ((8, 1), (4, 2), (2, 4), (1, 8)):
        batch = {"micro_batch_size": micro, "accumulation_steps": accumulation}
        # sgd shows the gradient itself; an adaptive optimizer would divide its rounding by its
        # size.
        optimizer = {
            "name": "sgd",
            "learning_rate": 0.5,
            "scheduler": "constant",
            "warmup_steps": 0,
        }
        plan = tiny_plan(
            tiny_model_dir, tmp_path / f"{micro}", adapter=adapter, batch=batch, optimizer=optimizer
        )
        finished[micro] = train_plan(plan)
    reference = _weights(finished[8])
    for run in finished.values():
        assert run.losses == pytest.approx(finished[8].losses, abs=1e-6)
        for name, tensor in _weights(run).items():
            torch.testing.assert_close(tensor, reference[name], atol=1e-6, rtol=1e-5)


def test_the_eval_loss_does_not_move_with_the_eval_batch_size(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    first = []
    for size in (1, 2, 4, 9):
        plan = tiny_plan(
            tiny_model_dir,
            tmp_path / f"{size}",
            batch={"eval_batch_size": size, "total_steps": 1},
        )
        first.append(train_plan(plan).eval_losses[0])
    assert first == pytest.approx([first[0]] * 4, abs=1e-6)


def test_the_logged_learning_rate_is_the_schedule_of_transformers(uninterrupted: Trained) -> None:
    from transformers import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=5e-2)
    schedule = get_scheduler(
        "cosine", optimizer, num_warmup_steps=2, num_training_steps=TOTAL_STEPS
    )
    expected = []
    for _ in range(TOTAL_STEPS):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    logged = [e.learning_rate for e in uninterrupted.events if isinstance(e, StepEvent)]
    assert logged == pytest.approx(expected, rel=1e-12)


def test_gradient_checkpointing_changes_nothing_but_memory(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plain = train_plan(tiny_plan(tiny_model_dir, tmp_path / "a", adapter={"dropout": 0.0}))
    checkpointed = train_plan(
        tiny_plan(
            tiny_model_dir, tmp_path / "b", adapter={"dropout": 0.0}, gradient_checkpointing=True
        )
    )
    assert checkpointed.losses == pytest.approx(plain.losses, abs=1e-6)


def test_workers_prepare_the_same_batches(
    uninterrupted: Trained, tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", batch={"num_workers": 3})
    assert train_plan(plan).weights_hash == uninterrupted.weights_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"weight_decay": 0.5}},
        {"optimizer": {"max_grad_norm": 0.01}},
        {"optimizer": {"label_smoothing": 0.1}},
        {"optimizer": {"neftune_noise_alpha": 5.0}},
        {"optimizer": {"learning_rate": 1e-2}},
        {"optimizer": {"warmup_steps": 6}},
        {"optimizer": {"adam_beta1": 0.5}},
        {"optimizer": {"adam_beta2": 0.9}},
        {"optimizer": {"adam_epsilon": 1e-2}},
        {"optimizer": {"scheduler": "constant"}},
        {"optimizer": {"name": "sgd"}},
        {"adapter": {"r": 2}},
        {"adapter": {"alpha": 32}},
        {"adapter": {"dropout": 0.5}},
        {"adapter": {"use_rslora": True}},
        {"adapter": {"use_dora": True}},
        {"adapter": {"layers_to_transform": (0,)}},
        {"adapter": {"target_modules": ("q_proj",)}},
        {"batch": {"shuffle": False}},
        {"batch": {"total_steps": 9}},
        {"batch": {"accumulation_steps": 1}},
    ],
    ids=lambda changes: json.dumps(changes),
)
def test_every_setting_reaches_the_weights(
    changes: dict[str, object], uninterrupted: Trained, tiny_model_dir: Path, tmp_path: Path
) -> None:
    run = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", **changes))
    assert run.weights_hash != uninterrupted.weights_hash
    assert run.losses != uninterrupted.losses


def test_the_best_step_is_kept_although_it_is_the_oldest(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    # It learns, so whoever wants a high loss had the best of it first.
    plan = tiny_plan(
        tiny_model_dir,
        tmp_path / "run",
        optimizer={"warmup_steps": 0},
        evaluation={"every": Every(1), "greater_is_better": True},
        saving={"every": Every(1), "total_limit": 2},
    )
    run = train_plan(plan)
    values = {e.step: e.eval_loss for e in run.events if isinstance(e, EvalEvent) if e.step}
    best = max(values, key=lambda step: values[step])
    assert run.outcome.state.best_step == best
    assert best < TOTAL_STEPS / 2
    assert hash_of(run.directory.final_model) == hash_of(
        run.directory.checkpoints / f"checkpoint-{best}"
    )
    assert {c.step for c in list_checkpoints(run.directory.checkpoints)} == {best, TOTAL_STEPS}


def test_load_best_false_keeps_the_last_step(tiny_model_dir: Path, tmp_path: Path) -> None:
    plan = tiny_plan(
        tiny_model_dir,
        tmp_path / "run",
        optimizer={"learning_rate": 30.0, "scheduler": "constant", "warmup_steps": 0},
        evaluation={"load_best": False},
    )
    run = train_plan(plan)
    last = run.directory.checkpoints / f"checkpoint-{TOTAL_STEPS}"
    assert hash_of(run.directory.final_model) == hash_of(last)


def test_accuracy_can_choose_the_best_step(tiny_model_dir: Path, tmp_path: Path) -> None:
    plan = tiny_plan(
        tiny_model_dir,
        tmp_path / "run",
        evaluation={"metric": "accuracy", "greater_is_better": True, "every": Every(2)},
    )
    run = train_plan(plan)
    accuracies = {e.step: e.accuracy for e in run.events if isinstance(e, EvalEvent) if e.step}
    assert run.outcome.state.best_metric == max(accuracies.values())


def test_early_stopping_ends_the_run_after_the_agreed_number_of_evaluations(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = tiny_plan(
        tiny_model_dir,
        tmp_path / "run",
        optimizer={"learning_rate": 30.0, "scheduler": "constant", "warmup_steps": 0},
        evaluation={"every": Every(1), "patience": 2},
    )
    run = train_plan(plan)
    (stop,) = [e for e in run.events if isinstance(e, EarlyStopEvent)]
    assert stop.evaluations_without_improvement == 2
    assert run.outcome.state.step == stop.step < TOTAL_STEPS


def test_without_resume_points_the_best_is_still_kept(tiny_model_dir: Path, tmp_path: Path) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", saving={"every": Every(0)})
    run = train_plan(plan)
    kept = {c.step for c in list_checkpoints(run.directory.checkpoints)}
    assert kept == {run.outcome.state.best_step, TOTAL_STEPS}


def test_without_evaluation_the_last_step_is_the_model(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", evaluation={"enabled": False})
    run = train_plan(plan)
    assert run.eval_losses == []
    last = run.directory.checkpoints / f"checkpoint-{TOTAL_STEPS}"
    assert hash_of(run.directory.final_model) == hash_of(last)


def _data_with_a_poisoned_row() -> PreparedData:
    """Row 5 holds a token whose embedding the poisoned model maps to NaN."""
    data = tiny_data()
    rows = [
        (data.train.input_ids(i).tolist(), data.train.trained(i).tolist())
        for i in range(len(data.train))
    ]
    rows[5][0][-1] = 300
    rows[5][0][-2] = 300
    return PreparedData(ListRows(rows, "rows.jsonl"), data.eval, data.report)


@pytest.fixture
def poisoned_model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    import shutil

    from safetensors.torch import save_file

    directory = tmp_path / "poisoned"
    shutil.copytree(tiny_model_dir, directory)
    state = load_file(directory / "model.safetensors")
    state["model.embed_tokens.weight"][300] = math.nan
    # The head is its own matrix here, so that only the poisoned row is touched.
    config = json.loads((directory / "config.json").read_text())
    state["lm_head.weight"] = torch.nan_to_num(state["model.embed_tokens.weight"].clone())
    config["tie_word_embeddings"] = False
    (directory / "config.json").write_text(json.dumps(config))
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_a_non_finite_loss_stops_the_run_before_the_weights_and_names_the_rows(
    poisoned_model_dir: Path, tmp_path: Path
) -> None:
    plan = tiny_plan(poisoned_model_dir, tmp_path / "run", batch={"total_steps": 5})
    with pytest.raises(RunError) as failed:
        train_plan(plan, data=_data_with_a_poisoned_row())
    assert failed.value.exit_code == 1
    assert "rows.jsonl:6" in failed.value.summary
    for checkpoint in list_checkpoints(tmp_path / "run" / "checkpoints"):
        assert all(
            torch.isfinite(t).all()
            for t in load_file(checkpoint.path / "adapter_model.safetensors").values()
        )


def test_a_skipped_non_finite_step_is_counted_and_leaves_the_weights_finite(
    poisoned_model_dir: Path, tmp_path: Path
) -> None:
    plan = tiny_plan(poisoned_model_dir, tmp_path / "run", on_nonfinite="skip")
    run = train_plan(plan, data=_data_with_a_poisoned_row())
    events = [e for e in run.events if isinstance(e, NonFiniteEvent)]
    assert run.outcome.state.nonfinite_steps == len(events) >= 2
    assert all("rows.jsonl:6" in e.rows for e in events)
    weights = load_file(run.directory.final_model / "adapter_model.safetensors")
    assert all(torch.isfinite(t).all() for t in weights.values())


def test_every_save_is_announced_with_its_reason(uninterrupted: Trained) -> None:
    saves = {e.step: e.reason for e in uninterrupted.events if isinstance(e, CheckpointEvent)}
    best = uninterrupted.outcome.state.best_step
    assert saves[best] == "best"
    assert {5, 10} <= saves.keys()


def test_an_evaluation_reports_its_progress(uninterrupted: Trained) -> None:
    progress = [e.rows_done for e in uninterrupted.events if isinstance(e, EvalProgressEvent)]
    assert progress[:3] == [4, 8, 9]


def test_stock_peft_reproduces_the_eval_loss_of_the_final_model(
    uninterrupted: Trained, tiny_model_dir: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, uninterrupted.directory.final_model)
    assert stock_loss(model, tiny_data().eval) == pytest.approx(
        uninterrupted.outcome.state.best_eval_loss, abs=1e-5
    )


def test_stock_transformers_reproduces_the_eval_loss_of_a_full_run(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", adapter=None))
    model = AutoModelForCausalLM.from_pretrained(run.directory.final_model, dtype=torch.float32)
    assert stock_loss(model, tiny_data().eval) == pytest.approx(
        run.outcome.state.best_eval_loss, abs=1e-5
    )
    assert AutoTokenizer.from_pretrained(run.directory.final_model).chat_template
    assert model.config.tie_word_embeddings is True
    assert not hasattr(model.config, "auto_map")


def test_a_run_out_of_memory_says_what_to_reduce(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafarm.training.backends.pytorch import gradients

    def no_memory(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("out of memory: tried to allocate 9 GiB")

    monkeypatch.setattr(gradients, "label_logits", no_memory)
    with pytest.raises(RunError, match="9 GiB") as failed:
        train_plan(tiny_plan(tiny_model_dir, tmp_path / "run"))
    assert "max_seq_length" in failed.value.hint


def _weights(run: Trained) -> dict[str, torch.Tensor]:
    (file,) = (run.directory.checkpoints / f"checkpoint-{TOTAL_STEPS}").glob("*model.safetensors")
    return load_file(file)


def test_a_run_whose_every_gradient_overflows_in_float16_is_no_success(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Skipping:
        """As accelerate wraps an optimizer whose gradient scaler found an Infinity."""

        step_was_skipped = True

        def __init__(self, optimizer: Any) -> None:
            self._optimizer = optimizer

        def step(self) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            return getattr(self._optimizer, name)

    made = loop._Loop.__init__

    def with_a_scaler(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        self.scaler, self.optimizer = torch.amp.GradScaler("cpu"), Skipping(self.optimizer)

    monkeypatch.setattr(loop._Loop, "__init__", with_a_scaler)
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", batch={"total_steps": 6})
    with pytest.raises(RunError, match="all 6 steps so far overflow in float16"):
        train_plan(plan)
