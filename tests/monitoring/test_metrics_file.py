from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from llamafarm.decision import Decision
from llamafarm.errors import OutputError, RunError
from llamafarm.monitoring.events import (
    RECORDED_EVENTS,
    BestLostEvent,
    CheckpointEvent,
    EarlyStopEvent,
    Event,
    FindingEvent,
    MessageEvent,
    NonFiniteEvent,
    OutOfMemoryEvent,
    PlanEvent,
    ResumeEvent,
    SaveFailedEvent,
    SavingEvent,
    StepEvent,
)
from llamafarm.monitoring.metrics_file import (
    MetricsFile,
    cut_after,
    event_line,
    read_events,
    read_what_can_be_read,
)
from tests.diagnosis.hand_made import SETTINGS
from tests.disk_faults import watched

from .events_of_a_run import (
    end_event,
    eval_event,
    eval_progress_event,
    events_of_a_run,
    overfitting_event,
    start_event,
    step_event,
)

ONE_OF_EACH: list[Event] = [
    SETTINGS,
    start_event(),
    eval_event(0, 2.2, bleu=0.25),
    step_event(1),
    CheckpointEvent(step=1, path="checkpoints/checkpoint-1", reason="best", bytes=9, seconds=0.1),
    NonFiniteEvent(step=2, what="loss", action="skipped", rows=("a.jsonl:3", "a.jsonl:9")),
    EarlyStopEvent(step=2, best_step=1, evaluations_without_improvement=3),
    MessageEvent(level="warning", text="größer → kleiner"),
    ResumeEvent(step=2, path="checkpoints/checkpoint-2", note=""),
    SaveFailedEvent(step=2, text="No space left on device", kept_step=1),
    BestLostEvent(step=2, lost_step=2, kept_step=1, text="it was not saved"),
    OutOfMemoryEvent(step=2, during="step", tokens=4096, action="halved"),
    FindingEvent(step=2, rule="spike", text="5 times the median", rows=("a.jsonl:3",)),
    overfitting_event(),
    end_event(),
]


def write(path: Path, events: list[Event]) -> None:
    sink = MetricsFile(path)
    for event in events:
        sink.handle(event)
    sink.close()


def test_every_kind_of_event_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, ONE_OF_EACH)
    assert read_events(path) == ONE_OF_EACH
    assert {event.kind for event in ONE_OF_EACH} == set(RECORDED_EVENTS)


def test_a_line_is_an_object_that_starts_with_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [step_event(3, 1.5)])
    line = json.loads(path.read_text())
    assert next(iter(line)) == "event"
    assert (line["event"], line["step"], line["loss"]) == ("step", 3, 1.5)


def test_plans_and_progress_of_an_evaluation_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    plan = PlanEvent(strategy_id="a", output_dir="b", decisions=(Decision("c", "d", "flag", "e"),))
    write(path, [plan, eval_progress_event(3), step_event(1)])
    assert [event.kind for event in read_events(path)] == ["step"]


def test_a_line_is_on_disk_before_the_next_event_comes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = MetricsFile(path)
    sink.handle(step_event(1))
    assert read_events(path) == [step_event(1)]
    sink.close()
    sink.close()


def test_a_nonfinite_number_is_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [step_event(1, math.inf), eval_event(1, 2.0, bleu=-math.inf)])
    lines = path.read_text().splitlines()
    assert json.loads(lines[0], parse_constant=pytest.fail)["loss"] is None
    step, evaluation = read_events(path)
    assert math.isnan(step.loss)  # type: ignore[attr-defined]
    assert math.isnan(evaluation.metrics["bleu"])  # type: ignore[attr-defined]


def test_a_torn_last_line_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [step_event(1), step_event(2)])
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert read_events(path) == [step_event(1)][: content[:end].count(b"\n")]


def test_appending_removes_a_torn_last_line_first(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [step_event(1)])
    path.write_bytes(path.read_bytes() + b'{"event": "st')
    write(path, [step_event(2)])
    assert read_events(path) == [step_event(1), step_event(2)]


def test_a_missing_file_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none.jsonl") == []


def test_every_broken_line_inside_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [step_event(1)])
    good = path.read_bytes()
    broken = [b"{oops", b'{"event": "teapot"}', b'{"event": "resume", "step": 1, "extra": 2}', b"3"]
    path.write_bytes(good + b"".join(line + b"\n" for line in broken) + good)
    with pytest.raises(OutputError) as caught:
        read_events(path)
    assert [p.where.rsplit(":", 1)[1] for p in caught.value.problems] == ["2", "3", "4", "5"]
    assert "teapot" in caught.value.render()
    assert "extra, note, path" in caught.value.render()


def test_cutting_leaves_nothing_after_the_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    said = MessageEvent(level="info", text="said after step 4")
    said_later = MessageEvent(level="info", text="said after step 5")
    before = [start_event(), step_event(3), step_event(4), eval_event(4, 2.0), said]
    write(path, [*before, step_event(5), said_later, end_event(5)])
    assert cut_after(path, 4) == 3
    assert read_events(path) == before


def test_cutting_keeps_unreadable_lines_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [step_event(1)])
    path.write_bytes(path.read_bytes() + b"{oops\n")
    assert cut_after(path, 1) == 0
    assert path.read_bytes().endswith(b"{oops\n")


def test_cutting_also_removes_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [step_event(1)])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event"')
    cut_after(path, 1)
    assert path.read_bytes() == whole


def test_cutting_before_the_first_step_empties_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, events_of_a_run())
    assert cut_after(path, -1) == len(events_of_a_run())
    assert path.read_bytes() == b""


def test_cutting_a_missing_file_makes_none(tmp_path: Path) -> None:
    assert cut_after(tmp_path / "none.jsonl", 3) == 0
    assert not (tmp_path / "none.jsonl").exists()


def test_what_a_resumed_run_did_again_at_the_step_of_its_checkpoint_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    saved = CheckpointEvent(step=4, path="c", reason="interrupted", bytes=9, seconds=0.1)
    before = [step_event(4), saved]
    again = [ResumeEvent(step=4, path="c", note=""), eval_event(4, 2.0), step_event(5)]
    write(path, [*before, *again])
    assert cut_after(path, 4) == 3
    assert read_events(path) == before


def test_without_its_checkpoint_event_everything_of_the_step_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    older = CheckpointEvent(step=2, path="c", reason="schedule", bytes=9, seconds=0.1)
    write(path, [older, step_event(4), eval_event(4, 2.0), step_event(5)])
    cut_after(path, 4)
    assert read_events(path) == [older, step_event(4), eval_event(4, 2.0)]


def test_the_evaluation_that_a_checkpoint_has_is_kept_after_the_event_of_an_earlier_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    earlier = CheckpointEvent(step=4, path="c", reason="interrupted", bytes=9, seconds=0.1)
    again = [ResumeEvent(step=4, path="c", note=""), eval_event(4, 2.0)]
    before = [step_event(4), earlier, *again]
    write(path, [*before, step_event(5)])
    assert cut_after(path, 4, evaluated=True) == 1
    assert read_events(path) == before
    assert cut_after(path, 4) == 2
    saved = [eval_event(4, 2.0), earlier]
    path.unlink()
    write(path, [*saved, end_event(4)])
    assert cut_after(path, 4, evaluated=True) == 1
    assert read_events(path) == saved


def test_a_cut_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, events_of_a_run())
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(RunError, match="No space left on device"):
        cut_after(path, 4)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_opened_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone/metrics\.jsonl cannot be written"):
        MetricsFile(tmp_path / "gone" / "metrics.jsonl")


def test_lines_that_a_full_disk_refuses_wait_and_no_checkpoint_is_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = MetricsFile(tmp_path / "metrics.jsonl")

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    sink.handle(step_event(1))
    assert sink.trouble.endswith("metrics.jsonl cannot be written: No space left on device")
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.jsonl"):
        sink.handle(SavingEvent(step=1))
    sink.handle(CheckpointEvent(step=1, path="c", reason="best", bytes=9, seconds=0.1))
    sink.close()
    assert sink.trouble.endswith("metrics.jsonl cannot be written: No space left on device")


def test_lines_that_waited_are_written_when_the_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    sink, disk = MetricsFile(path), Disk(monkeypatch, room=5)
    sink.handle(step_event(1))
    disk.room = 10**6
    sink.close()
    assert sink.trouble == ""
    assert read_events(path) == [step_event(1)]


def test_a_line_is_one_write_and_all_lines_are_durable_before_and_after_a_checkpoint(
    tmp_path: Path,
) -> None:
    calls: list[str] = []
    sink = MetricsFile(tmp_path / "metrics.jsonl")
    with watched(lambda name, _: calls.append(name)):
        sink.handle(step_event(1))
        sink.handle(step_event(2))
        sink.handle(SavingEvent(step=2))
        sink.handle(CheckpointEvent(step=2, path="c", reason="best", bytes=9, seconds=0.1))
        sink.close()
    assert calls == ["write", "write", "fsync", "write", "fsync", "fsync"]


class Disk:
    """Takes 10 bytes a call, and nothing any more when it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self._write = room, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = min(10, self.room, len(data))
        self.room -= count
        return self._write(descriptor, data[:count])


def test_a_line_that_the_disk_takes_in_parts_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch, room=10**6)
    write(tmp_path / "metrics.jsonl", ONE_OF_EACH)
    assert read_events(tmp_path / "metrics.jsonl") == ONE_OF_EACH


@pytest.mark.parametrize("cut_fails", [False, True])
def test_a_disk_that_is_full_for_a_while_leaves_no_torn_line_in_front_of_another(
    tmp_path: Path, cut_fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = MetricsFile(path)
    disk = Disk(monkeypatch, room=len(event_line(step_event(1))) + 25)
    sink.handle(step_event(1))
    with monkeypatch.context() as patch:
        if cut_fails:
            patch.setattr(os, "ftruncate", lambda *_: os.close(-1))
        sink.handle(step_event(2))
    assert "No space left on device" in sink.trouble
    assert read_events(path) == [step_event(1)]
    assert path.read_bytes().endswith(b"\n") != cut_fails
    disk.room = 10**6
    sink.handle(step_event(3))
    assert sink.trouble == ""
    sink.close()
    assert read_events(path) == [step_event(1), step_event(2), step_event(3)]


def test_a_link_is_never_written_through(tmp_path: Path) -> None:
    outside, path = tmp_path / "outside", tmp_path / "metrics.jsonl"
    outside.write_text("precious")
    path.symlink_to(outside)
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be written"):
        MetricsFile(path)
    assert outside.read_text() == "precious"
    cut_after(path, -1)
    assert outside.read_text() == "precious"


def test_a_disk_that_cannot_be_read_or_synced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = MetricsFile(path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=r"Input/output error: .*metrics\.jsonl"):
        sink.handle(SavingEvent(step=1))
    sink.close()
    sink.close()
    assert sink.trouble.endswith("metrics.jsonl cannot be written: Input/output error")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for read in (read_events, lambda path: cut_after(path, 1)):
        with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read: Input/output error"):
            read(path)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"step": "3"}, "a step event whose step is not a whole number"),
        ({"step": True}, "a step event whose step is not a whole number"),
        ({"step": 10**30}, "a step event whose step is not a whole number"),
        ({"loss": "low"}, "a step event whose loss is not a number"),
        ({"loss": [1.0]}, "a step event whose loss is not a number"),
        ({"device_utilisation": "all"}, "a step event whose device_utilisation is not a number"),
    ],
)
def test_a_line_with_a_value_of_another_type_is_no_event(
    tmp_path: Path, changed: dict[str, object], told: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({**step_event(3).to_json(), **changed}) + "\n")
    events, problems = read_what_can_be_read(path)
    assert events == []
    assert [problem.message for problem in problems] == [told]


def test_whole_numbers_and_null_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({**step_event(3).to_json(), "loss": 2, "grad_norm": None}) + "\n")
    (event,) = read_events(path)
    assert isinstance(event, StepEvent)
    assert (event.loss, math.isnan(event.grad_norm)) == (2, True)


def test_what_a_later_version_added_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "finding", "step": 3, "rule": "plateau", "text": "flat"}\n')
    (event,) = read_events(path)
    assert isinstance(event, FindingEvent)
    assert (event.numbers, event.patch, event.rows) == ({}, {}, ())


def test_a_line_that_is_nested_without_end_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"event": ' + b"[" * 100_000 + b"\n" + event_line(step_event(1)))
    events, problems = read_what_can_be_read(path)
    assert events == [step_event(1)]
    assert len(problems) == 1
