"""Whatever happens, the run directory says how it ended and from where it can go on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import Interrupted, OutputError, RunError
from llamafarm.hardware.facts import Hardware
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.monitoring.events import CheckpointEvent, Event, MessageEvent, ResumeEvent
from llamafarm.planning.plan import Every, TrainingPlan
from llamafarm.training import run as module
from llamafarm.training.checkpoint import list_checkpoints
from llamafarm.training.run import RunInputs, RunOptions, run
from tests.hardware.recorded import make_cpu

from .runs import Killed, run_plan, tiny_data, tiny_plan


def on_step(step: int, act: Callable[[], None]) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if event.kind == "step" and getattr(event, "step", None) == step:
            act()

    return on_event


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def record(plan: TrainingPlan) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((plan.output_dir / "run.json").read_text())
    return value


def end_of(plan: TrainingPlan) -> dict[str, Any]:
    """The last line of metrics.jsonl."""
    line = (plan.output_dir / "metrics.jsonl").read_text().splitlines()[-1]
    value: dict[str, Any] = json.loads(line)
    return value


@pytest.fixture
def plan(tiny_model_dir: Path, tmp_path: Path) -> TrainingPlan:
    return tiny_plan(tiny_model_dir, tmp_path / "run", batch={"total_steps": 6})


def test_a_finished_run_says_so_everywhere(plan: TrainingPlan) -> None:
    done = run_plan(plan)
    assert record(plan)["status"] == "completed"
    assert record(plan)["error"] == ""
    assert json.loads(done.directory.summary_file.read_text()) == done.summary.to_json()
    assert (end_of(plan)["event"], end_of(plan)["status"]) == ("end", "completed")
    assert end_of(plan)["best_step"] == done.summary.best_step


def test_a_signal_is_taken_until_the_end_is_written_and_the_run_goes_on_from_there(
    plan: TrainingPlan, tmp_path: Path
) -> None:
    whole = run_plan(replace(plan, output_dir=tmp_path / "whole"))
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        run_plan(plan, on_event=on_step(3, lambda: signal.raise_signal(signal.SIGTERM)))
    first = record(plan)
    assert first["status"] == "interrupted"
    assert "after step 3 of 6" in first["error"]
    assert end_of(plan)["status"] == "interrupted"
    resumed = run_plan(plan, resume=True)
    assert record(plan)["status"] == "completed"
    assert (record(plan)["id"], record(plan)["started"]) == (first["id"], first["started"])
    assert len(record(plan)["resumed"]) == 1
    assert resumed.weights_hash == whole.weights_hash
    steps = [e.step for e in resumed.recorded if e.kind == "step"]  # type: ignore[attr-defined]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_signals_are_handled_as_before_when_the_run_is_over(plan: TrainingPlan) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        run_plan(plan, on_event=on_step(1, lambda: signal.raise_signal(signal.SIGTERM)))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_disk_error_is_a_failed_run_with_a_hint(plan: TrainingPlan) -> None:
    full = OSError(28, "No space left on device")
    with pytest.raises(RunError, match="the run directory cannot be written") as failed:
        run_plan(plan, on_event=on_step(2, raises(full)))
    assert failed.value.exit_code == 1
    assert "--resume" in failed.value.hint
    assert record(plan)["status"] == "failed"
    assert "No space left" in record(plan)["error"]


def test_a_defect_is_not_hidden_and_the_run_has_failed(plan: TrainingPlan) -> None:
    with pytest.raises(ZeroDivisionError):
        run_plan(plan, on_event=on_step(2, raises(ZeroDivisionError("a defect"))))
    assert record(plan)["status"] == "failed"
    assert record(plan)["error"] == "a defect"
    assert json.loads((plan.output_dir / "summary.json").read_text())["status"] == "failed"


def test_what_stopped_the_run_is_told_although_its_end_cannot_be_written(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module.write_json_atomic

    def refuses_the_summary(path: Path, value: Any) -> None:
        if path.name == "summary.json":
            raise OSError(28, "No space left on device")
        write(path, value)

    monkeypatch.setattr(module, "write_json_atomic", refuses_the_summary)
    with pytest.raises(RunError, match="the news"):
        run_plan(plan, on_event=on_step(2, raises(RunError("the news"))))
    with pytest.raises(RunError, match="the run directory cannot be written"):
        run_plan(plan, resume=True)


def test_a_killed_run_is_still_running_for_its_file_and_can_be_resumed(
    plan: TrainingPlan, tmp_path: Path
) -> None:
    whole = run_plan(replace(plan, output_dir=tmp_path / "whole"))
    with pytest.raises(Killed):
        run_plan(plan, on_event=on_step(6, raises(Killed())))
    assert record(plan)["status"] == "running"
    assert run_plan(plan, resume=True).weights_hash == whole.weights_hash


def test_a_damaged_newest_checkpoint_is_passed_over_and_named(
    plan: TrainingPlan, tmp_path: Path
) -> None:
    whole = run_plan(replace(plan, output_dir=tmp_path / "whole"))
    with pytest.raises(Killed):
        run_plan(plan, on_event=on_step(6, raises(Killed())))
    newest, best = (plan.output_dir / "checkpoints" / f"checkpoint-{step}" for step in (5, 4))
    (newest / "optimizer.safetensors").write_bytes(b"")
    resumed = run_plan(plan, resume=True)
    (start,) = [e for e in resumed.events if isinstance(e, ResumeEvent)]
    assert (start.step, start.path) == (4, str(best))
    notes = [e.text for e in resumed.events if isinstance(e, MessageEvent)]
    assert any("checkpoint-5 cannot be used: optimizer.safetensors has 0 bytes" in n for n in notes)
    assert resumed.weights_hash == whole.weights_hash


def test_a_run_that_differs_is_refused_value_by_value_or_goes_on_when_told_to(
    plan: TrainingPlan,
) -> None:
    with pytest.raises(Interrupted):
        run_plan(plan, on_event=on_step(3, lambda: signal.raise_signal(signal.SIGTERM)))
    other = replace(plan, optimizer=replace(plan.optimizer, learning_rate=0.1), seed=7)
    with pytest.raises(OutputError, match="checkpoint-3 belongs to a run that differs") as refused:
        run_plan(other, resume=True)
    assert [p.message for p in refused.value.problems] == [
        "optimizer.learning_rate: was 0.05, is 0.1",
        "seed: was 42, is 7",
    ]
    assert "--resume-anyway" in refused.value.hint
    events: list[Event] = []
    resume_anyway(other, events)
    notes = [e.text for e in events if isinstance(e, MessageEvent)]
    assert "resumed anyway: seed: was 42, is 7" in notes
    assert record(plan)["status"] == "completed"


def test_what_a_resumed_run_may_change_is_not_asked_about(plan: TrainingPlan) -> None:
    with pytest.raises(Interrupted):
        run_plan(plan, on_event=on_step(3, lambda: signal.raise_signal(signal.SIGTERM)))
    other = replace(
        plan,
        saving=replace(plan.saving, every=Every(1)),
        logging=replace(plan.logging, every=Every(2)),
        batch=replace(plan.batch, num_workers=1),
    )
    resumed = run_plan(other, resume=True)
    assert {5, 6} <= {e.step for e in resumed.events if isinstance(e, CheckpointEvent)}


def test_a_resume_without_a_checkpoint_starts_and_says_so(plan: TrainingPlan) -> None:
    with pytest.raises(Killed):
        run_plan(plan, on_event=on_step(2, raises(Killed())))
    assert list_checkpoints(plan.output_dir / "checkpoints") == ()
    resumed = run_plan(plan, resume=True)
    (start,) = [e for e in resumed.events if isinstance(e, ResumeEvent)]
    assert (start.step, start.path) == (0, "")
    steps = [e.step for e in resumed.recorded if e.kind == "step"]  # type: ignore[attr-defined]
    assert steps == [1, 2, 3, 4, 5, 6]


class Listener:
    def __init__(self, events: list[Event]) -> None:
        self.events = events

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass


def resume_anyway(plan: TrainingPlan, events: list[Event]) -> None:
    inputs = RunInputs(
        plan,
        tiny_data(),
        load_tokenizer(plan.model.source.directory),
        Hardware(make_cpu("test", 2, 16)),
        "tiny: {}\n",
    )
    run(inputs, RunOptions(resume=True, resume_anyway=True), [Listener(events)])
