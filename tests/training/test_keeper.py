"""A disk that refuses a checkpoint does not end the run, and no lost one becomes the model."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llamafarm.errors import RunError
from llamafarm.monitoring.events import (
    BestLostEvent,
    CheckpointEvent,
    EvalEvent,
    Event,
    MessageEvent,
    ResumeEvent,
    SaveFailedEvent,
    SavingEvent,
)
from llamafarm.monitoring.metrics_file import MetricsFile
from llamafarm.planning.plan import Every, TrainingPlan
from llamafarm.training import keeper
from llamafarm.training.checkpoint import Rotated, list_checkpoints, verify_checkpoint
from llamafarm.training.signals import StopRequest

from .faulty import failing_saves
from .runs import Killed, hash_of, run_plan, tiny_plan, train_plan

# It learns slowly and steadily: every evaluation is better than the one before.
STEADY = {"learning_rate": 2e-3, "scheduler": "constant", "warmup_steps": 0}


def steady_plan(model_dir: Path, output_dir: Path, **changes: Any) -> TrainingPlan:
    changes = {"optimizer": STEADY} | changes
    return tiny_plan(model_dir, output_dir, **changes)


def test_a_failed_save_does_not_end_the_run_and_is_told(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = steady_plan(tiny_model_dir, tmp_path / "whole")
    whole = train_plan(plan)
    failing_saves(monkeypatch, lambda step: step == 5)
    run = train_plan(replace(plan, output_dir=tmp_path / "run"))
    (told,) = [e for e in run.events if isinstance(e, SaveFailedEvent)]
    assert (told.step, told.text, told.kept_step) == (5, "checkpoint-5: disk full", 4)
    assert not [e for e in run.events if isinstance(e, BestLostEvent)]
    assert run.weights_hash == whole.weights_hash


def test_after_a_failed_save_the_next_try_waits_and_then_does_not_wait_for_the_schedule(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(keeper.time, "monotonic", lambda: now)

    def on_event(event: Event, stop: StopRequest) -> None:
        nonlocal now
        if event.kind == "step":
            now += 25.0  # step 5 fails at 125 s, the next try is due at 185 s: after step 8

    tries = failing_saves(monkeypatch, lambda step: step == 5)
    plan = tiny_plan(
        tiny_model_dir,
        tmp_path / "run",
        evaluation={"enabled": False},
        saving={"every": Every(5), "total_limit": 9},
        batch={"total_steps": 9},
    )
    train_plan(plan, on_event=on_event)
    assert tries == [5, 5, 8, 9]


def test_where_the_best_was_not_saved_the_best_that_was_becomes_the_final_model(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_saves(monkeypatch, lambda step: step > 8)
    run = run_plan(steady_plan(tiny_model_dir, tmp_path / "run"))
    evaluations = {e.step: e for e in run.events if isinstance(e, EvalEvent)}
    assert evaluations[12].best
    (lost,) = [e for e in run.events if isinstance(e, BestLostEvent)]
    assert (lost.step, lost.lost_step, lost.kept_step) == (12, 12, 8)
    assert run.weights_hash == hash_of(run.directory.checkpoints / "checkpoint-8")
    summary = json.loads(run.directory.summary_file.read_text())
    assert summary["best_step"] == 8
    assert summary["eval_loss"] == evaluations[8].eval_loss
    assert [e.best_step for e in run.events if e.kind == "end"] == [8]
    assert any("checkpoint-12: disk full" in found["text"] for found in summary["findings"])


def test_a_best_that_was_lost_is_beaten_by_the_next_better_than_the_kept_one(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_saves(monkeypatch, lambda step: step == 8)
    run = train_plan(steady_plan(tiny_model_dir, tmp_path / "run"))
    (lost,) = [e for e in run.events if isinstance(e, BestLostEvent)]
    assert (lost.lost_step, lost.kept_step) == (8, 4)
    assert run.outcome.state.best_step == 12
    assert run.weights_hash == hash_of(run.directory.checkpoints / "checkpoint-12")


def test_without_any_checkpoint_the_final_model_is_what_is_in_memory(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, load_best in (("last", False), ("best", True)):
        plan = steady_plan(
            tiny_model_dir, tmp_path / name / "whole", evaluation={"load_best": load_best}
        )
        whole = train_plan(plan)
        with monkeypatch.context() as patch:
            failing_saves(patch, lambda step: True)
            run = train_plan(replace(plan, output_dir=tmp_path / name / "run"))
        assert list_checkpoints(run.directory.checkpoints) == ()
        assert run.weights_hash == whole.weights_hash
        assert not (run.directory.final_model / "optimizer.safetensors").exists()


def test_a_final_model_of_the_last_step_comes_from_memory_where_its_save_failed(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = steady_plan(tiny_model_dir, tmp_path / "whole", evaluation={"load_best": False})
    whole = train_plan(plan)
    failing_saves(monkeypatch, lambda step: step == 12)
    run = train_plan(replace(plan, output_dir=tmp_path / "run"))
    assert run.weights_hash == whole.weights_hash
    assert 12 not in steps_on_disk(run.directory.checkpoints)


def test_a_best_that_was_damaged_before_the_end_is_an_error_and_a_resume_makes_it_again(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = best_at_4(tiny_model_dir, tmp_path / "whole")
    whole = run_plan(plan)
    assert whole.summary.best_step == 4
    cut = replace(plan, output_dir=tmp_path / "cut")

    def damage_at_the_end(event: Event) -> None:
        if isinstance(event, CheckpointEvent) and event.step == 12:
            damage(cut.output_dir / "checkpoints" / "checkpoint-4")

    with pytest.raises(RunError, match="checkpoint-4 was to become the final model") as failed:
        run_plan(cut, on_event=damage_at_the_end)
    assert "SHA-256" in failed.value.summary
    assert "--resume" in failed.value.hint
    assert not (cut.output_dir / "final_model").exists()
    assert json.loads((cut.output_dir / "run.json").read_text())["status"] == "failed"
    resumed = run_plan(cut, resume=True)
    assert resumed.weights_hash == whole.weights_hash
    assert resumed.summary.best_step == 4


def test_a_resume_passes_over_a_checkpoint_whose_best_is_damaged(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = best_at_4(tiny_model_dir, tmp_path / "whole")
    whole = run_plan(plan)
    cut = replace(plan, output_dir=tmp_path / "cut")
    with pytest.raises(Killed):
        run_plan(cut, on_event=kill_after(11))
    checkpoints = cut.output_dir / "checkpoints"
    assert steps_on_disk(checkpoints) == {3, 4, 6, 9}
    damage(checkpoints / "checkpoint-4")
    resumed = run_plan(cut, resume=True)
    (start,) = [e for e in resumed.events if isinstance(e, ResumeEvent)]
    assert start.step == 3
    (note,) = [e.text for e in resumed.events if isinstance(e, MessageEvent) and "over" in e.text]
    assert "checkpoint-9 is passed over: checkpoint-4, the best so far, cannot be used" in note
    assert resumed.weights_hash == whole.weights_hash
    assert verify_checkpoint(checkpoints / "checkpoint-4") == ""
    steps = [e.step for e in resumed.recorded if e.kind == "step"]  # type: ignore[attr-defined]
    assert steps == list(range(1, 13))


def test_a_damaged_best_is_made_again_although_the_best_before_it_is_gone(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = steady_plan(tiny_model_dir, tmp_path / "whole", saving={"total_limit": 3})
    whole = run_plan(plan)
    cut = replace(plan, output_dir=tmp_path / "cut")
    with pytest.raises(Killed):
        run_plan(cut, on_event=kill_after(11))
    checkpoints = cut.output_dir / "checkpoints"
    assert steps_on_disk(checkpoints) == {5, 8, 10}
    damage(checkpoints / "checkpoint-8")
    resumed = run_plan(cut, resume=True)
    (start,) = [e for e in resumed.events if isinstance(e, ResumeEvent)]
    assert start.step == 5
    assert resumed.weights_hash == whole.weights_hash


def test_where_no_earlier_checkpoint_is_left_the_damaged_best_is_given_up(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = best_at_4(tiny_model_dir, tmp_path / "run", saving={"total_limit": 2, "every": Every(3)})
    with pytest.raises(Killed):
        run_plan(plan, on_event=kill_after(11))
    checkpoints = plan.output_dir / "checkpoints"
    assert steps_on_disk(checkpoints) == {4, 9}
    damage(checkpoints / "checkpoint-4")
    resumed = run_plan(plan, resume=True)
    (lost,) = [e for e in resumed.events if isinstance(e, BestLostEvent)]
    assert (lost.step, lost.lost_step, lost.kept_step) == (9, 4, 0)
    assert resumed.summary.best_step == 12
    assert resumed.weights_hash == hash_of(checkpoints / "checkpoint-12")


def test_the_last_step_is_trained_on_from_a_damaged_best_where_the_last_one_is_wanted(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = best_at_4(tiny_model_dir, tmp_path / "whole", evaluation={"load_best": False})
    whole = run_plan(plan)
    cut = replace(plan, output_dir=tmp_path / "cut")
    with pytest.raises(Killed):
        run_plan(cut, on_event=kill_after(11))
    damage(cut.output_dir / "checkpoints" / "checkpoint-4")
    resumed = run_plan(cut, resume=True)
    (start,) = [e for e in resumed.events if isinstance(e, ResumeEvent)]
    assert start.step == 9
    assert resumed.weights_hash == whole.weights_hash


def test_weights_that_a_huge_learning_rate_blew_up_are_never_saved(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    plan = tiny_plan(
        tiny_model_dir,
        tmp_path / "run",
        optimizer={"learning_rate": 1e38, "scheduler": "linear", "warmup_steps": 8},
        saving={"every": Every(1), "total_limit": 9},
        evaluation={"enabled": False},
    )
    events: list[Event] = []
    with pytest.raises(RunError) as failed:
        train_plan(plan, on_event=lambda event, stop: events.append(event))
    assert "not finite" in failed.value.summary
    assert "lower the learning rate" in failed.value.hint
    for checkpoint in list_checkpoints(tmp_path / "run" / "checkpoints"):
        assert all_finite(checkpoint.path)
    assert not (tmp_path / "run" / "final_model").exists()


def test_infinite_weights_are_named_and_so_is_the_checkpoint_that_is_left(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step, steps = torch.optim.AdamW.step, 0

    def blows_up(self: Any, closure: Any = None) -> Any:
        nonlocal steps
        steps += 1
        done = take_step(self, closure)
        if steps == 10:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(math.inf)
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", blows_up)
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", evaluation={"enabled": False})
    with pytest.raises(RunError, match="the weights are not finite after step 10 ") as failed:
        train_plan(plan)
    assert "lora_A" in failed.value.summary
    assert "the newest checkpoint is of step 5" in failed.value.summary
    assert "--resume --resume-anyway" in failed.value.hint
    assert steps_on_disk(tmp_path / "run" / "checkpoints") == {5}
    assert all_finite(tmp_path / "run" / "checkpoints" / "checkpoint-5")


def test_the_best_and_the_newest_are_there_after_every_save_whatever_fails(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    best: dict[int, float] = {}
    saved: set[int] = set()

    def watch(event: Event, stop: StopRequest) -> None:
        if isinstance(event, EvalEvent) and event.step:
            best[event.step] = event.eval_loss
        if isinstance(event, CheckpointEvent):
            saved.add(event.step)
            there = steps_on_disk(checkpoints)
            assert max(saved) in there
            assert min(saved & best.keys(), key=lambda step: best[step]) in there
            assert len(there) <= 2

    failing_saves(monkeypatch, lambda step: step in (3, 6, 7, 11))
    plan = steady_plan(
        tiny_model_dir,
        tmp_path / "run",
        evaluation={"every": Every(1)},
        saving={"every": Every(1), "total_limit": 1},
    )
    train_plan(plan, on_event=watch)
    assert saved == {1, 2, 4, 5, 8, 9, 10, 12}


def test_what_could_not_be_rotated_away_is_told(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "checkpoint-4 could not be removed: busy"
    monkeypatch.setattr(keeper, "rotate", lambda *_, **__: Rotated(failed=(said,)))
    run = train_plan(tiny_plan(tiny_model_dir, tmp_path / "run", batch={"total_steps": 1}))
    assert MessageEvent(level="warning", text=said) in run.events


def test_a_best_found_after_a_resume_counts_as_kept(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = steady_plan(tiny_model_dir, tmp_path / "run")
    # The signal comes after step 8 and before its evaluation.
    with pytest.raises(Exception, match="after step 8"):
        train_plan(plan, on_event=stop_after(8))
    failing_saves(monkeypatch, lambda step: step > 8)
    resumed = train_plan(plan, resume=True)
    (lost,) = [e for e in resumed.events if isinstance(e, BestLostEvent)]
    assert (lost.lost_step, lost.kept_step) == (12, 8)
    assert resumed.weights_hash == hash_of(resumed.directory.checkpoints / "checkpoint-8")


def best_at_4(model_dir: Path, output_dir: Path, **changes: Any) -> TrainingPlan:
    """It learns, so whoever wants a high loss has the best of it first."""
    evaluation = {"greater_is_better": True} | changes.pop("evaluation", {})
    saving = {"every": Every(3), "total_limit": 9} | changes.pop("saving", {})
    return steady_plan(model_dir, output_dir, evaluation=evaluation, saving=saving, **changes)


def kill_after(step: int) -> Any:
    def on_event(event: Event) -> None:
        if event.kind == "step" and getattr(event, "step", None) == step:
            raise Killed

    return on_event


def stop_after(step: int) -> Any:
    def on_event(event: Event, stop: StopRequest) -> None:
        if event.kind == "step" and getattr(event, "step", None) == step:
            stop.received = 15

    return on_event


def damage(checkpoint: Path) -> None:
    """Flip one bit of its weights."""
    file = checkpoint / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def steps_on_disk(checkpoints: Path) -> set[int]:
    return {c.step for c in list_checkpoints(checkpoints)}


def all_finite(checkpoint: Path) -> bool:
    files = sorted(checkpoint.glob("*.safetensors"))
    assert len(files) == 2  # weights and optimizer
    return all(bool(torch.isfinite(t).all()) for file in files for t in load_file(file).values())


@pytest.mark.skipif(sys.platform != "linux", reason="the name of a descriptor is read from /proc")
def test_what_a_checkpoint_has_behind_it_is_durable_before_it(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = steady_plan(
        tiny_model_dir, tmp_path / "run", batch={"total_steps": 4}, saving={"every": Every(2)}
    )
    durable: list[str] = []
    at_stake: dict[str, list[str]] = {}
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name == "metrics.jsonl":
            durable[:] = path.read_text(encoding="utf-8").splitlines()
        elif match := re.search(r"\.tmp-(checkpoint-[0-9]+)", str(path)):
            at_stake.setdefault(match[1], list(durable))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    run_plan(plan)
    steps = {
        name: [e["step"] for line in lines if (e := json.loads(line))["event"] == "step"]
        for name, lines in at_stake.items()
    }
    assert steps == {"checkpoint-2": [1, 2], "checkpoint-4": [1, 2, 3, 4]}


def test_a_damaged_best_that_nobody_wants_changes_nothing(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    unwanted = {"load_best": False, "every": Every(2), "patience": 3}
    plan = best_at_4(tiny_model_dir, tmp_path / "whole", evaluation=unwanted)
    whole = run_plan(plan)
    assert (whole.summary.best_step, whole.summary.steps) == (2, 8)
    cut = replace(plan, output_dir=tmp_path / "cut")
    with pytest.raises(Killed):
        run_plan(cut, on_event=kill_after(7))
    damage(cut.output_dir / "checkpoints" / "checkpoint-2")
    resumed = run_plan(cut, resume=True)
    assert not [e for e in resumed.events if isinstance(e, BestLostEvent)]
    assert resumed.summary.steps == 8
    assert resumed.weights_hash == whole.weights_hash


def test_a_damaged_checkpoint_is_never_told_as_kept(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = steady_plan(
        tiny_model_dir, tmp_path / "run", saving={"every": Every(2), "total_limit": 20}
    )
    run_plan(plan)
    damage(plan.output_dir / "checkpoints" / "checkpoint-12")
    failing_saves(monkeypatch, lambda step: step == 12)
    again = run_plan(plan, resume=True)
    (told, *_) = [e for e in again.events if isinstance(e, SaveFailedEvent)]
    assert told.kept_step == 10


def test_a_last_step_in_memory_is_the_final_model_whatever_stands_on_disk(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = steady_plan(
        tiny_model_dir,
        tmp_path / "run",
        batch={"total_steps": 6},
        saving={"every": Every(2)},
        evaluation={"load_best": False, "enabled": False},
    )
    whole = hash_of(run_plan(plan).directory.final_model)
    damage(plan.output_dir / "checkpoints" / "checkpoint-6")
    failing_saves(monkeypatch, lambda step: step == 6)
    assert hash_of(run_plan(plan, resume=True).directory.final_model) == whole


def test_metrics_that_the_disk_refuses_hold_the_checkpoint_back_and_the_bytes_are_told(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = steady_plan(tiny_model_dir, tmp_path / "run", saving={"every": Every(2)})
    whole = train_plan(replace(plan, output_dir=tmp_path / "whole"))
    handle = MetricsFile.handle

    def refuse_once(self: MetricsFile, event: Event) -> None:
        if isinstance(event, SavingEvent) and event.step == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")
        handle(self, event)

    monkeypatch.setattr(MetricsFile, "handle", refuse_once)
    run = run_plan(plan)
    (told,) = [e for e in run.events if isinstance(e, SaveFailedEvent)]
    assert told.kept_step == 4
    assert re.search(r"No space left on device: metrics.jsonl \(at least [\d,]+ bytes", told.text)
    assert run.weights_hash == whole.weights_hash
