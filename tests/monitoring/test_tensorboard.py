from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import UserError
from llamafarm.monitoring.events import Event, FindingEvent, ResumeEvent
from llamafarm.monitoring.tensorboard import TensorBoardSink, require_tensorboard
from llamafarm.monitoring.trackers.tracker import RunFacts
from tests.diagnosis.hand_made import settings

from .events_of_a_run import end_event, eval_event, start_event, step_event

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


FACTS = RunFacts("first-1-ab12", "first", "run", False, 0, {"method.r": 8, "odd": "a|<b>"})
SETTINGS = settings(learning_rate=1e-3, rank=8)


def write(directory: Path, events: list[Event]) -> None:
    sink = TensorBoardSink(directory, FACTS)
    for event in events:
        sink.handle(event)
    sink.close()
    sink.close()


def reader(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return accumulator


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = reader(directory)
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
def test_values_findings_and_the_end_are_there_and_strange_text_is_text(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import metadata

    finding = FindingEvent(step=2, rule="spike", text="the loss is 9", advice="look at the row")
    write(tmp_path, [SETTINGS, start_event(), step_event(1, 2.1), finding, end_event()])
    found = reader(tmp_path)
    strategy = found.Tensors("strategy")[0].tensor_proto.string_val[0].decode()
    assert "| method.r | 8 |" in strategy
    assert "<b>" not in strategy
    text = found.Tensors("findings/spike")[0]
    assert (text.step, text.tensor_proto.string_val[0]) == (2, b"the loss is 9: look at the row")
    plugin = found.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(plugin[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["learning_rate"].number_value == 1e-3
    assert start.hparams["rank"].number_value == 8
    end = metadata.parse_session_end_info_plugin_data(plugin[metadata.SESSION_END_INFO_TAG])
    assert end.status == 1  # success


@needs_tensorboard
def test_a_resumed_run_has_its_values_once(tmp_path: Path) -> None:
    write(tmp_path, [SETTINGS, step_event(1), step_event(2)])
    write(tmp_path, [ResumeEvent(step=1, path="", note=""), SETTINGS, step_event(2)])
    assert len(reader(tmp_path).Tensors("strategy")) == 1


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
    sink, write = TensorBoardSink(tmp_path, FACTS), os.write

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
    sink = TensorBoardSink(tmp_path / "logs", FACTS)
    sink.handle(step_event(1, 2.1))
    assert sink.trouble.endswith("cannot be written: File exists")


def test_a_missing_package_is_an_error_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'llamafarm\[tensorboard\]'"):
        require_tensorboard()
    with pytest.raises(UserError):
        TensorBoardSink(tmp_path, FACTS)
