"""Whatever happens, the run directory says how it ended and from where it can go on."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import Interrupted, OutputError, RunError
from llamafarm.hardware.facts import Hardware
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.monitoring import metrics_file, tensorboard
from llamafarm.monitoring.events import (
    CheckpointEvent,
    EvalEvent,
    Event,
    MessageEvent,
    ResumeEvent,
    StepEvent,
)
from llamafarm.planning.plan import Every, TrainingPlan
from llamafarm.training import keeper
from llamafarm.training import run as module
from llamafarm.training.checkpoint import (
    STATE_FILE,
    checkpoint_files,
    list_checkpoints,
    write_checkpoint,
)
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
    needed = rf"about {plan.forecast.disk_bytes:,} bytes needed, [\d,]+ free\)$"
    assert re.search(needed, failed.value.summary)
    assert record(plan)["status"] == "failed"
    assert "No space left" in record(plan)["error"]


def test_a_disk_that_is_not_full_says_nothing_of_room(plan: TrainingPlan) -> None:
    with pytest.raises(
        RunError, match=r"cannot be written: Input/output error: some/file\n.*see what the disk has"
    ):
        run_plan(plan, on_event=on_step(2, raises(OSError(5, "Input/output error", "some/file"))))


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


@pytest.mark.parametrize("lacks", ["identity", "loop", "optimizer", "best_global_step"])
def test_a_checkpoint_without_the_state_of_a_run_is_passed_over_and_named(
    plan: TrainingPlan, lacks: str
) -> None:
    with pytest.raises(Killed):
        run_plan(plan, on_event=on_step(6, raises(Killed())))
    newest = plan.output_dir / "checkpoints" / "checkpoint-5"
    files = dict(checkpoint_files(newest))
    state = json.loads(files[STATE_FILE])
    del state[lacks]
    files[STATE_FILE] = json.dumps(state).encode()
    write_checkpoint(newest.parent, 5, files.items())
    resumed = run_plan(plan, resume=True)
    (start,) = [e for e in resumed.events if isinstance(e, ResumeEvent)]
    assert start.step == 4
    notes = [e.text for e in resumed.events if isinstance(e, MessageEvent)]
    assert f"checkpoint-5 cannot be used: its {STATE_FILE} has no {lacks}" in notes


def test_a_record_of_another_shape_is_no_reason_to_stop(plan: TrainingPlan) -> None:
    with pytest.raises(Killed):
        run_plan(plan, on_event=on_step(6, raises(Killed())))
    (plan.output_dir / "run.json").write_text('{"resumed": null, "id": [1], "started": 5}')
    run_plan(plan, resume=True)
    assert len(record(plan)["resumed"]) == 1
    assert isinstance(record(plan)["id"], str)


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
    whole = run_plan(replace(other, output_dir=other.output_dir.with_name("whole")))
    planned = {e.step: e.learning_rate for e in whole.events if isinstance(e, StepEvent)}
    rates = {e.step: e.learning_rate for e in events if isinstance(e, StepEvent)}
    assert rates == {step: rate for step, rate in planned.items() if step in rates}
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


def test_a_run_that_was_cut_short_counts_steps_that_no_log_line_told(plan: TrainingPlan) -> None:
    plan = replace(plan, logging=replace(plan.logging, every=Every(4)))
    whole = run_plan(replace(plan, output_dir=plan.output_dir.with_name("whole"))).recorded
    tokens = {e.step: e.tokens for e in whole if isinstance(e, StepEvent)}

    def stop(event: Event) -> None:
        if isinstance(event, EvalEvent) and event.step == 3:
            signal.raise_signal(signal.SIGTERM)

    plan = replace(plan, evaluation=replace(plan.evaluation, every=Every(3)))
    with pytest.raises(Interrupted):
        run_plan(plan, on_event=stop)
    summary = json.loads((plan.output_dir / "summary.json").read_text())
    assert summary["steps"] == 3
    assert tokens[1] < summary["train_tokens"] < tokens[4]


def test_the_time_of_a_run_is_that_of_all_its_processes(plan: TrainingPlan) -> None:
    def stop_after(step: int) -> Callable[[Event], None]:
        def stop() -> None:
            time.sleep(0.3)
            signal.raise_signal(signal.SIGTERM)

        return on_step(step, stop)

    for step, resume in ((2, False), (4, True)):
        with pytest.raises(Interrupted):
            run_plan(plan, on_event=stop_after(step), resume=resume)
    assert json.loads((plan.output_dir / "summary.json").read_text())["runtime_seconds"] >= 0.6


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


class FullDisk:
    """Refuses lines of metrics.jsonl while `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        write = metrics_file.write_all

        def write_unless_full(descriptor: int, data: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            write(descriptor, data)

        monkeypatch.setattr(metrics_file, "write_all", write_unless_full)

    def fill(self) -> None:
        self.full = True


def warnings_of(events: list[Event]) -> list[str]:
    return [e.text for e in events if isinstance(e, MessageEvent) and e.level == "warning"]


def train_telling(plan: TrainingPlan, events: list[Event], act: Callable[[Event], None]) -> None:
    class Told:
        def handle(self, event: Event) -> None:
            events.append(event)
            act(event)

        def close(self) -> None: ...

    tokenizer = load_tokenizer(plan.model.source.directory)
    hardware = Hardware(make_cpu("test", 2, 16))
    run(RunInputs(plan, tiny_data(), tokenizer, hardware, ""), RunOptions(), [Told()])


def test_a_finished_run_whose_last_lines_are_refused_is_finished_and_a_resume_adds_them(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, events = FullDisk(monkeypatch), list[Event]()
    train_telling(plan, events, on_step(5, disk.fill))
    assert record(plan)["status"] == "completed"
    assert "the last events of this run are not in it" in warnings_of(events)[-1]
    disk.full = False
    steps = [e.step for e in run_plan(plan, resume=True).recorded if isinstance(e, StepEvent)]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_signal_is_the_news_although_the_last_lines_are_refused(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, events = FullDisk(monkeypatch), list[Event]()

    def act(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == 3:
            signal.raise_signal(signal.SIGTERM)
        if isinstance(event, CheckpointEvent):
            disk.fill()

    with pytest.raises(Interrupted):
        train_telling(plan, events, act)
    assert "the last events of this run are not in it" in warnings_of(events)[-1]
    assert record(plan)["status"] == "interrupted"


def test_no_checkpoint_is_ahead_of_lines_that_wait_for_the_disk(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(plan, saving=replace(plan.saving, every=Every(5)))
    disk = FullDisk(monkeypatch)

    def act(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == 4:
            disk.fill()
        if isinstance(event, StepEvent) and event.step == 6:
            raise Killed

    with pytest.raises(Killed):
        run_plan(plan, on_event=act)
    assert list_checkpoints(plan.output_dir / "checkpoints") == ()
    disk.full = False
    steps = [e.step for e in run_plan(plan, resume=True).recorded if isinstance(e, StepEvent)]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_an_evaluation_is_not_lost_where_its_checkpoint_replaced_one_of_the_same_step(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(event: Event) -> None:
        if event.kind == "eval_progress" and getattr(event, "step", None) == 4:
            signal.raise_signal(signal.SIGTERM)

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with pytest.raises(Interrupted):
        run_plan(plan, on_event=stop)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keeper, "rotate", killed)
        run_plan(plan, resume=True)
    evaluated = [e.step for e in run_plan(plan, resume=True).recorded if isinstance(e, EvalEvent)]
    assert evaluated == [0, 4, 6]


def test_a_disk_that_refuses_tensorboard_does_not_end_the_run(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard, "write_all", refuse)
    plan = replace(plan, logging=replace(plan.logging, report_to=("tensorboard",)))
    told = [text for text in warnings_of(run_plan(plan).events) if "TensorBoard" in text]
    assert len(told) == 1
    assert told[0].endswith("No space left on device; the run goes on without them")
    assert record(plan)["status"] == "completed"
