from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamafarm.errors import RunError
from llamafarm.monitoring.events import Event
from llamafarm.monitoring.follow import FollowedMetrics
from llamafarm.monitoring.metrics_file import cut_after, event_line, read_what_can_be_read

from .events_of_a_run import events_of_a_run, step_event

EVENTS = events_of_a_run()


def append(path: Path, *events: Event) -> None:
    with path.open("ab") as file:
        file.write(b"".join(map(event_line, events)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "metrics.jsonl"
    append(file, *EVENTS[:5])
    return file


def test_what_is_appended_is_read_and_nothing_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = FollowedMetrics()
    assert followed.read(path) == (EVENTS[:5], [])
    append(path, *EVENTS[5:])
    sizes: list[int] = []
    new_bytes = FollowedMetrics._new_bytes

    def counted(self: FollowedMetrics, file: Path) -> bytes:
        found = new_bytes(self, file)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(FollowedMetrics, "_new_bytes", counted)
    assert followed.read(path) == (EVENTS, [])
    assert sizes == [sum(len(event_line(event)) for event in EVENTS[5:])]
    assert followed.read(path)[0] == read_what_can_be_read(path)[0]


def test_a_line_that_is_being_written_waits_for_its_end(path: Path) -> None:
    followed = FollowedMetrics()
    line = event_line(step_event(4))
    with path.open("ab", buffering=0) as file:
        file.write(line[:20])
        assert followed.read(path) == (EVENTS[:5], [])
        file.write(line[20:])
        assert followed.read(path) == ([*EVENTS[:5], step_event(4)], [])


def test_a_file_that_a_resume_replaced_is_read_anew(path: Path) -> None:
    followed = FollowedMetrics()
    followed.read(path)
    cut_after(path, 2)
    append(path, step_event(3, 1.0))
    assert followed.read(path)[0] == [*EVENTS[:4], step_event(3, 1.0)]


def test_a_file_that_was_cut_in_place_and_grew_again_is_read_anew(path: Path) -> None:
    followed = FollowedMetrics()
    before = path.stat()
    followed.read(path)
    kept = sum(len(event_line(event)) for event in EVENTS[:4])
    os.truncate(path, kept)
    append(path, step_event(3, 1.0), step_event(4, 0.5))
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_size > before.st_size
    assert followed.read(path)[0] == [*EVENTS[:4], step_event(3, 1.0), step_event(4, 0.5)]


def test_lines_that_are_none_are_named_by_their_number_in_the_file(path: Path) -> None:
    followed = FollowedMetrics()
    followed.read(path)
    with path.open("a") as file:
        file.write("nonsense\n")
    followed.read(path)
    append(path, step_event(4))
    events, problems = followed.read(path)
    assert events == [*EVENTS[:5], step_event(4)]
    assert [problem.where for problem in problems] == [f"{path}:6"]


def test_a_file_that_is_gone_holds_nothing(path: Path) -> None:
    followed = FollowedMetrics()
    followed.read(path)
    content = path.read_bytes()
    path.unlink()
    assert followed.read(path) == ([], [])
    path.write_bytes(content)
    assert followed.read(path) == (EVENTS[:5], [])


def test_a_disk_that_refuses_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read: Input/output error"):
        FollowedMetrics().read(path)
