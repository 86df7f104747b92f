"""What is written is complete or absent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llamafarm import files
from llamafarm.files import (
    remove_stale_stages,
    staged_directory,
    write_bytes,
    write_bytes_atomic,
    write_json_atomic,
)


def test_a_file_is_replaced_whole_and_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    old_mask = os.umask(0o027)
    try:
        write_bytes_atomic(tmp_path / "a", b"old")
        write_bytes_atomic(tmp_path / "a", b"new")
    finally:
        os.umask(old_mask)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_old_content_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes_atomic(tmp_path / "a", b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_bytes_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_writing_never_follows_a_link_or_replaces_a_file_unasked(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("link", "target"):
        with pytest.raises(OSError, match=r"exist|symbolic"):
            write_bytes(tmp_path / name, b"x")
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_an_error_inside_a_staged_directory_leaves_what_was_there(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with staged_directory(final) as stage:
        (stage / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), staged_directory(final) as stage:
        (stage / "b").write_text("2")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["final"]
    assert [p.name for p in final.iterdir()] == ["a"]


def test_a_staged_directory_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "final"
    for name in ("a", "b"):
        with staged_directory(final) as stage:
            (stage / name).write_text(name)
    assert [p.name for p in final.iterdir()] == ["b"]


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(tmp_path / "a", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_remains_of_an_interrupted_write_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-a-1").write_text("half")
    (tmp_path / ".tmp-b-1").mkdir()
    (tmp_path / "kept").write_text("")
    outside = tmp_path / "kept"
    (tmp_path / ".tmp-link").symlink_to(outside)
    assert len(remove_stale_stages(tmp_path)) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert remove_stale_stages(tmp_path / "absent") == ()
