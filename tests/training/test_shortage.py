"""Where memory is short the run goes on in smaller parts, with the same numbers."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llamafarm.errors import RunError
from llamafarm.evaluation import loss as evaluation
from llamafarm.models.packed import label_logits
from llamafarm.models.packing_probe import Packability
from llamafarm.monitoring.events import EvalEvent, Event, OutOfMemoryEvent, SaveFailedEvent
from llamafarm.training.backends.pytorch import gradients, loop
from llamafarm.training.backends.pytorch import model as models
from llamafarm.training.checkpoint import list_checkpoints
from llamafarm.training.signals import StopRequest

from .faulty import failing_saves, refusal, small_memory
from .runs import Killed, Trained, hash_of, tiny_data, tiny_plan, train_plan

NO_DROPOUT = {"dropout": 0.0}
STEPS = {"total_steps": 6}
SGD = {"name": "sgd", "learning_rate": 0.5, "scheduler": "constant", "warmup_steps": 0}


def test_less_memory_gives_the_same_weights_without_dropout(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, optimizer in (("sgd", SGD), ("adamw", {})):
        plan = tiny_plan(
            tiny_model_dir,
            tmp_path / name,
            adapter=NO_DROPOUT,
            batch={"micro_batch_size": 8, "accumulation_steps": 1},
            optimizer=optimizer,
        )
        whole = train_plan(plan)
        with monkeypatch.context() as patch:
            memory = small_memory(patch, 45)
            parts = train_plan(replace(plan, output_dir=tmp_path / f"{name}-short"))
        assert memory.refused == 2
        assert parts.outcome.state.token_budget <= 45
        assert relative_difference(whole, parts) < 1e-6
        assert parts.losses == pytest.approx(whole.losses, rel=1e-6)
        assert parts.eval_losses == pytest.approx(whole.eval_losses, rel=1e-6)


def test_every_row_is_trained_once_an_epoch_although_memory_is_short(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 60)
    made: list[int] = []
    clip = gradients.GradientMaker.make

    def recorded(self: Any, batch: Any, give_up: Any) -> Any:
        result = clip(self, batch, give_up)
        if isinstance(result, gradients.Gradients):
            made.extend(batch.indices)
        return result

    monkeypatch.setattr(gradients.GradientMaker, "make", recorded)
    plan = tiny_plan(
        tiny_model_dir, tmp_path / "run", adapter=NO_DROPOUT, batch={"total_steps": 10}
    )
    train_plan(plan)
    assert Counter(made) == dict.fromkeys(range(len(tiny_data().train)), 2)


def test_what_did_not_fit_is_told_and_not_tried_again(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = small_memory(monkeypatch, 60)
    run = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", adapter=NO_DROPOUT, batch=STEPS))
    told = [e for e in run.events if isinstance(e, OutOfMemoryEvent)]
    assert len(told) == memory.refused
    assert [e.during for e in told] == ["step"] * len(told)
    assert [e.tokens for e in told] == [size for size in memory.sizes if size > 60]
    assert f"at most {told[-1].tokens // 2:,} tokens from now on" in told[-1].action
    last = max(number for number, size in enumerate(memory.sizes) if size > 60)
    budget = run.outcome.state.token_budget
    assert all(
        row.num_computed <= budget or len(row.documents) == 1 for row in memory.rows[last + 1 :]
    )


def test_the_safe_size_is_in_the_checkpoint_and_holds_after_a_resume(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "whole", adapter=NO_DROPOUT)
    cut = replace(plan, output_dir=tmp_path / "cut")
    with monkeypatch.context() as patch:
        small_memory(patch, 60)
        whole = train_plan(plan)
        with pytest.raises(Killed):
            train_plan(cut, on_event=kill_after(7))
    again = small_memory(monkeypatch, 10**9)  # roomy now: only the checkpoint knows better
    resumed = train_plan(cut, resume=True)
    budget = whole.outcome.state.token_budget
    assert resumed.outcome.state.token_budget == budget
    assert all(row.num_computed <= budget or len(row.documents) == 1 for row in again.rows)
    assert resumed.weights_hash == whole.weights_hash
    assert resumed.losses == whole.losses[5:]


def test_with_dropout_activations_are_recomputed_first_and_the_weights_are_bitwise_equal(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "whole")
    whole = train_plan(plan)
    memory = small_memory(monkeypatch, 60, recomputed_tokens=10**9)
    short = train_plan(replace(plan, output_dir=tmp_path / "short"))
    (told,) = [e for e in short.events if isinstance(e, OutOfMemoryEvent)]
    assert "gradient checkpointing" in told.action
    assert memory.refused == 1
    assert short.outcome.state.activations_recomputed
    assert short.outcome.state.token_budget == 0
    assert short.weights_hash == whole.weights_hash


def test_recomputing_goes_on_after_a_resume(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run")
    memory = small_memory(monkeypatch, 60, recomputed_tokens=10**9)
    with pytest.raises(Killed):
        train_plan(plan, on_event=kill_after(7))
    resumed = train_plan(plan, resume=True)
    assert memory.refused == 1
    assert not [e for e in resumed.events if isinstance(e, OutOfMemoryEvent)]


def test_with_dropout_smaller_parts_follow_and_say_that_other_numbers_are_drawn(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 60)
    run = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", batch=STEPS))
    first, second, *_ = [e for e in run.events if isinstance(e, OutOfMemoryEvent)]
    assert "gradient checkpointing" in first.action
    assert "dropout draws other numbers" in second.action


def test_a_row_that_does_not_fit_alone_ends_the_run_and_is_named(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny_data().train
    sizes = {f"rows.jsonl:{i + 1} ": len(rows.input_ids(i)) for i in range(len(rows))}
    size = max(sizes.values())
    small_memory(monkeypatch, size - 1)
    with pytest.raises(RunError) as failed:
        train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", adapter=NO_DROPOUT))
    assert failed.value.exit_code == 1
    (named,) = [name for name in sizes if name in failed.value.summary]
    assert sizes[named] == size
    assert f"({size} tokens), with gradient checkpointing" in failed.value.summary
    assert "DefaultCPUAllocator" in failed.value.summary
    assert "max_seq_length" in failed.value.hint


def test_an_architecture_that_cannot_recompute_is_said_to_be_one(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.TrainableModel, "recompute_activations", lambda self: False)
    small_memory(monkeypatch, 20)
    events: list[Event] = []
    with pytest.raises(RunError, match="this architecture has no gradient checkpointing") as failed:
        train_plan(
            tiny_plan(tiny_model_dir, tmp_path / "run"),
            on_event=lambda event, stop: events.append(event),
        )
    assert "with gradient checkpointing" not in failed.value.summary
    told = [e for e in events if isinstance(e, OutOfMemoryEvent)]
    assert told
    assert all("at most" in event.action for event in told)


def test_a_model_that_is_not_packed_recomputes_and_then_names_the_row(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "probe_packing", lambda config: Packability(False, "a test"))
    plan = tiny_plan(tiny_model_dir, tmp_path / "whole", batch=STEPS)
    whole = train_plan(plan)
    with monkeypatch.context() as patch:
        memory = small_memory(patch, 20, recomputed_tokens=10**9)
        short = train_plan(replace(plan, output_dir=tmp_path / "short"))
    assert memory.refused == 1
    assert all(len(row.documents) == 1 for row in memory.rows)
    assert short.weights_hash == whole.weights_hash
    small_memory(monkeypatch, 20)
    with pytest.raises(RunError, match=r"rows\.jsonl:\d+ does not fit even alone"):
        train_plan(replace(plan, output_dir=tmp_path / "too-short"))


def test_a_backward_pass_that_finds_no_room_is_done_again_too(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(
        tiny_model_dir, tmp_path / "whole", adapter=NO_DROPOUT, batch=STEPS, optimizer=SGD
    )
    whole = train_plan(plan)
    memory = small_memory(monkeypatch, 60, backward=True)
    parts = train_plan(replace(plan, output_dir=tmp_path / "short"))
    assert memory.refused >= 1
    assert relative_difference(whole, parts) < 1e-6


def test_the_failed_try_is_freed_before_the_next_one(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []

    def refuses_once(model: Any, row: Any, *, packed: bool) -> torch.Tensor:
        if alive:
            left.append(sum(ref() is not None for ref in alive))
        logits = label_logits(model, row, packed=packed)
        if not alive:
            alive.append(weakref.ref(logits))
            raise refusal()
        return logits

    monkeypatch.setattr(gradients, "label_logits", refuses_once)
    # Nothing may be left to the collector's own time.
    gc.collect()
    gc.disable()
    try:
        train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", adapter=NO_DROPOUT, batch=STEPS))
    finally:
        gc.enable()
    assert left[0] == 0


def test_gradients_of_the_failed_try_are_gone_before_the_next_one(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, held = 0, []

    def refuses_second(model: Any, row: Any, *, packed: bool) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise refusal()
        held.append(sum(p.grad is not None for p in model.parameters()))
        return label_logits(model, row, packed=packed)

    monkeypatch.setattr(gradients, "label_logits", refuses_second)
    train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", adapter=NO_DROPOUT, batch=STEPS))
    assert held[1] == 0


def test_an_evaluation_that_finds_no_room_takes_fewer_rows_and_gives_the_same_numbers(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "whole")
    whole = train_plan(plan)
    sizes = short_evaluation(monkeypatch, rows=2)
    short = train_plan(replace(plan, output_dir=tmp_path / "short"))
    told = [e for e in short.events if isinstance(e, OutOfMemoryEvent)]
    assert [e.during for e in told] == ["evaluation"]
    assert told[0].action.startswith("2 rows at a time from now on")
    assert sizes.count(4) == 1
    assert short.outcome.state.eval_rows == 2
    assert short.weights_hash == whole.weights_hash
    for one, other in zip(evaluations(whole), evaluations(short), strict=True):
        assert other.eval_loss == pytest.approx(one.eval_loss, rel=1e-8)
        assert (other.accuracy, other.rows, other.best) == (one.accuracy, one.rows, one.best)


def test_the_rows_of_an_evaluation_that_fit_are_known_after_a_resume(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run")
    sizes = short_evaluation(monkeypatch, rows=2)
    with pytest.raises(Killed):
        train_plan(plan, on_event=kill_after(7))
    sizes.clear()
    resumed = train_plan(plan, resume=True)
    assert max(sizes) == 2
    assert not [e for e in resumed.events if isinstance(e, OutOfMemoryEvent)]


def test_an_evaluation_row_that_does_not_fit_alone_is_named(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_evaluation(monkeypatch, rows=0)
    with pytest.raises(RunError, match=r"rows\.jsonl:1 does not fit even alone \(\d+ tokens\)"):
        train_plan(tiny_plan(tiny_model_dir, tmp_path / "run"))


def test_a_save_that_finds_no_room_is_tried_once_more_without_the_gradients(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "whole")
    whole = train_plan(plan)
    tries: list[int] = []
    tries = failing_saves(monkeypatch, lambda step: tries.count(step) == 1, lambda _: MemoryError())
    short = train_plan(replace(plan, output_dir=tmp_path / "short"))
    told = [e for e in short.events if isinstance(e, OutOfMemoryEvent)]
    assert {e.during for e in told} == {"save"}
    assert tries == [step for step in dict.fromkeys(tries) for _ in range(2)]
    assert not [e for e in short.events if isinstance(e, SaveFailedEvent)]
    assert short.weights_hash == whole.weights_hash


def test_a_save_that_finds_no_room_twice_has_failed_and_the_run_goes_on(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = failing_saves(monkeypatch, lambda step: step == 5, lambda _: refusal())
    run = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run"))
    assert tries.count(5) == 2
    (told,) = [e for e in run.events if isinstance(e, SaveFailedEvent)]
    assert (told.step, told.kept_step) == (5, 4)
    assert "out of memory while checkpoint-5 was written" in told.text


def test_looking_for_non_finite_weights_may_find_no_room_either(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    non_finite = loop.Snapshot.non_finite

    def refuses_once(self: Any) -> tuple[str, ...]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise refusal()
        return non_finite(self)

    monkeypatch.setattr(loop.Snapshot, "non_finite", refuses_once)
    run = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run"))
    assert [e.during for e in run.events if isinstance(e, OutOfMemoryEvent)] == ["save"]
    assert run.outcome.state.step == 12


def test_an_optimizer_that_finds_no_room_ends_the_run_and_nothing_half_done_is_saved(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    take_step = torch.optim.AdamW.step

    def refuses(self: Any, closure: Any = None) -> Any:
        nonlocal steps
        steps += 1
        if steps == 7:
            with torch.no_grad():  # half of it is done
                self.param_groups[0]["params"][0].add_(1.0)
            raise refusal()
        return take_step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", refuses)
    plan = tiny_plan(tiny_model_dir, tmp_path / "run")
    with pytest.raises(RunError, match="outside of a forward or backward pass") as failed:
        train_plan(plan)
    assert "8-bit optimizer" in failed.value.hint
    assert [c.step for c in list_checkpoints(tmp_path / "run" / "checkpoints")] == [4, 5]
    monkeypatch.undo()
    whole = train_plan(replace(plan, output_dir=tmp_path / "whole"))
    assert train_plan(plan, resume=True).weights_hash == whole.weights_hash


def kill_after(step: int) -> Any:
    def on_event(event: Event, stop: StopRequest) -> None:
        if event.kind == "step" and getattr(event, "step", None) == step:
            raise Killed

    return on_event


def short_evaluation(monkeypatch: pytest.MonkeyPatch, *, rows: int) -> list[int]:
    """Give evaluations room for so many rows at once; how many were tried each time."""
    sizes: list[int] = []

    def refuses(model: Any, row: Any, *, packed: bool) -> torch.Tensor:
        sizes.append(len(row.documents))
        if len(row.documents) > rows:
            raise refusal()
        return label_logits(model, row, packed=packed)

    monkeypatch.setattr(evaluation, "label_logits", refuses)
    return sizes


def evaluations(run: Trained) -> list[EvalEvent]:
    return [e for e in run.events if isinstance(e, EvalEvent)]


def relative_difference(one: Trained, other: Trained) -> float:
    """Norm of the difference of the last weights over the norm of what training moved them by."""
    first, second = (last_weights(run) for run in (one, other))
    apart = sum(float(((first[name] - second[name]).double() ** 2).sum()) for name in first)
    size = sum(float((first[name].double() ** 2).sum()) for name in first)
    assert size > 0
    return (apart / size) ** 0.5


def last_weights(run: Trained) -> dict[str, torch.Tensor]:
    newest = list_checkpoints(run.directory.checkpoints)[-1].path
    assert hash_of(newest)
    return load_file(newest / "adapter_model.safetensors")
