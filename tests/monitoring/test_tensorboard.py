from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import UserError
from llamafarm.monitoring.events import Event, ResumeEvent
from llamafarm.monitoring.tensorboard import TensorBoardSink, require_tensorboard

from .events_of_a_run import end_event, eval_event, start_event, step_event

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def write(directory: Path, events: list[Event]) -> None:
    sink = TensorBoardSink(directory)
    for event in events:
        sink.handle(event)
    sink.close()
    sink.close()


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return {
        tag: [(event.step, pytest.approx(event.value)) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


@needs_tensorboard
def test_steps_and_evaluations_become_scalars(tmp_path: Path) -> None:
    write(tmp_path, [start_event(), eval_event(0, 2.2, bleu=0.5), step_event(1, 2.1), end_event()])
    found = scalars(tmp_path)
    assert found["train/loss"] == [(1, 2.1)]
    assert found["eval/loss"] == [(0, 2.2)]
    assert found["eval/bleu"] == [(0, 0.5)]
    assert {"train/learning_rate", "train/grad_norm", "train/tokens_per_second"} <= set(found)


@needs_tensorboard
@pytest.mark.parametrize("resumed_at", [0, 2])
def test_no_step_appears_twice_after_a_resume(tmp_path: Path, resumed_at: int) -> None:
    write(tmp_path, [eval_event(0, 2.2), *(step_event(step, 9.0) for step in (1, 2, 3, 4))])
    base = [eval_event(0, 2.3)] if resumed_at == 0 else []
    again = [step_event(step, 1.0) for step in range(resumed_at + 1, 6)]
    write(tmp_path, [ResumeEvent(step=resumed_at, path="", note=""), *base, *again])
    found = scalars(tmp_path)
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4, 5]
    assert [step for step, _ in found["eval/loss"]] == [0]
    assert found["train/loss"][resumed_at] == (resumed_at + 1, 1.0)


@needs_tensorboard
def test_a_run_without_numbers_leaves_no_file(tmp_path: Path) -> None:
    write(tmp_path / "logs", [start_event(), end_event()])
    assert not (tmp_path / "logs").exists()


@needs_tensorboard
def test_after_an_error_of_the_disk_nothing_is_written_and_what_was_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, write = TensorBoardSink(tmp_path), os.write

    def half(descriptor: int, data: Any) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    sink.handle(step_event(1, 2.1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        sink.handle(step_event(2, 2.0))
    sink.handle(step_event(3, 1.9))
    sink.close()
    assert sink.trouble == (
        f"TensorBoard's files in {tmp_path} cannot be written: No space left on device"
    )
    assert scalars(tmp_path)["train/loss"] == [(1, 2.1)]


@needs_tensorboard
def test_a_directory_that_cannot_be_made_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    sink = TensorBoardSink(tmp_path / "logs")
    sink.handle(step_event(1, 2.1))
    assert sink.trouble.endswith("cannot be written: File exists")


def test_a_missing_package_is_an_error_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'llamafarm\[tensorboard\]'"):
        require_tensorboard()
    with pytest.raises(UserError):
        TensorBoardSink(tmp_path)
