from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.errors import OutputError
from llamafarm.monitoring.report.write import write_report

from .records import full_record

PNG = b"\x89PNG\r\n"


def test_page_and_pictures_are_in_the_run_directory(tmp_path: Path) -> None:
    written = write_report(full_record(tmp_path))
    assert written.page == tmp_path / "report.html"
    assert [p.name for p in written.pictures] == [
        "loss.png",
        "learning_rate.png",
        "gradient_norm.png",
        "throughput.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in written.pictures)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plots", "report.html"]


def test_the_same_run_gives_the_same_pictures(tmp_path: Path) -> None:
    first, second = (write_report(full_record(tmp_path)).pictures[0].read_bytes() for _ in "12")
    assert first == second


def test_a_run_without_a_step_has_a_page_without_pictures(tmp_path: Path) -> None:
    written = write_report(full_record(tmp_path, ()))
    assert written.pictures == ()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"the report in .* cannot be written: Is a directory"):
        write_report(full_record(tmp_path))
    assert not list(tmp_path.glob(".tmp-*"))


def test_pictures_that_are_not_drawn_any_more_go(tmp_path: Path) -> None:
    write_report(full_record(tmp_path))
    (tmp_path / "plots" / "old.png").touch()
    write_report(full_record(tmp_path))
    assert not (tmp_path / "plots" / "old.png").exists()
