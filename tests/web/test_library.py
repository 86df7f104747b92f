from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamafarm.errors import OutputError
from llamafarm.monitoring.summary import summarise
from llamafarm.web import library as library_module
from llamafarm.web.library import RunLibrary
from tests.monitoring.events_of_a_run import step_event
from tests.monitoring.run_directories import EVENTS, add_events, is_going_on, write_run


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every run that is read from the disk."""
    found: list[Path] = []
    read = library_module.read_run_record

    def counted(root: Path, *args: object, **options: object) -> object:
        found.append(root)
        return read(root, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(library_module, "read_run_record", counted)
    return found


def test_a_run_is_read_again_only_when_it_changed(tmp_path: Path, reads: list[Path]) -> None:
    root = write_run(tmp_path / "a", EVENTS[:5], status="running")
    library = RunLibrary(tmp_path)
    with is_going_on(root):
        first = library.record(library.id_of(root))
        assert library.record(library.id_of(root)) is first
        assert len(reads) == 1
        add_events(root, step_event(4))
        second = library.record(library.id_of(root))
    assert first is not None
    assert second is not None
    assert len(second.events) == len(first.events) + 1
    # Nothing was written, but its lock is free.
    third = library.record(library.id_of(root))
    assert third is not None
    assert (second.status, third.status) == ("running", "stopped")


def test_the_list_is_made_of_what_changed(tmp_path: Path, reads: list[Path]) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name)
    library = RunLibrary(tmp_path)
    assert [run.name for run in library.runs().runs] == ["a", "b"]
    add_events(tmp_path / "b", step_event(13))
    write_run(tmp_path / "c")
    assert [(run.name, run.steps) for run in library.runs().runs] == [
        ("a", 12),
        ("b", 12),
        ("c", 12),
    ]
    assert sorted(root.name for root in reads) == ["a", "b", "b", "c"]


def test_an_id_is_the_same_in_every_session_and_means_nothing_else(tmp_path: Path) -> None:
    root = write_run(tmp_path / "a")
    run_id = RunLibrary(tmp_path).id_of(root)
    assert run_id == RunLibrary(tmp_path).id_of(root)
    library = RunLibrary(tmp_path)
    assert library.record(run_id) is not None
    for other in ("a", "", "..", str(root), run_id[:-1]):
        assert library.record(other) is None


def test_a_run_that_was_removed_is_no_longer_there(tmp_path: Path) -> None:
    root = write_run(tmp_path / "a")
    library = RunLibrary(tmp_path)
    run_id = library.id_of(root)
    assert library.record(run_id) is not None
    (root / "run.json").unlink()
    assert library.runs().runs == ()
    assert library.record(run_id) is None


def test_a_run_that_became_a_link_is_refused(tmp_path: Path) -> None:
    root = write_run(tmp_path / "runs" / "a")
    library = RunLibrary(tmp_path / "runs")
    run_id = library.id_of(root)
    assert library.record(run_id) is not None
    root.rename(tmp_path / "elsewhere")
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"run\.json leads out of"):
        library.record(run_id)


def test_events_of_runs_that_nobody_asks_for_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[Path]
) -> None:
    monkeypatch.setattr(library_module, "_MOST_EVENTS", len(EVENTS))
    monkeypatch.setattr(library_module, "_ALWAYS_KEPT", 1)
    roots = [write_run(tmp_path / name) for name in ("a", "b")]
    for root in roots:
        (root / "summary.json").write_text(json.dumps(summarise(EVENTS).to_json()))
    library = RunLibrary(tmp_path)
    ids = [library.id_of(root) for root in roots]
    for run_id in (ids[0], ids[1], ids[1]):
        assert library.record(run_id) is not None
    assert len(reads) == 2
    again = library.record(ids[0])
    assert again is not None
    assert again.events == tuple(EVENTS)
    assert len(reads) == 3
