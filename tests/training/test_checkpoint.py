"""Checkpoints are complete or absent, and damage never goes unnoticed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from llamafarm.errors import RunError
from llamafarm.training import checkpoint as module
from llamafarm.training.checkpoint import (
    MANIFEST,
    checkpoint_files,
    list_checkpoints,
    newest_valid,
    rotate,
    verify_checkpoint,
    write_checkpoint,
)

FILES = [("model.safetensors", b"weights" * 100), ("trainer_state.json", b"{}"), ("empty", b"")]


def write(root: Path, *steps: int) -> None:
    for step in steps:
        write_checkpoint(root, step, iter(FILES))


def test_a_written_checkpoint_verifies_and_gives_its_files_back(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path, 7, iter(FILES))
    assert verify_checkpoint(written.checkpoint.path) == ""
    assert list(checkpoint_files(written.checkpoint.path)) == FILES
    assert written.num_bytes == sum(len(data) for _, data in FILES)


@pytest.mark.parametrize("name", [name for name, data in FILES if data])
def test_every_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1)
    file = tmp_path / "checkpoint-1" / name
    data = bytearray(file.read_bytes())
    for position in range(0, len(data), 97):
        data[position] ^= 1
        file.write_bytes(data)
        assert name in verify_checkpoint(tmp_path / "checkpoint-1")
        data[position] ^= 1
    file.write_bytes(data)
    assert verify_checkpoint(tmp_path / "checkpoint-1") == ""


def test_resume_takes_the_newest_checkpoint_that_verifies_and_says_what_it_passed_over(
    tmp_path: Path,
) -> None:
    write(tmp_path, 5, 10, 15, 20)
    (tmp_path / "checkpoint-20" / MANIFEST).unlink()
    (tmp_path / "checkpoint-15" / "model.safetensors").write_bytes(b"short")
    found, passed_over = newest_valid(tmp_path)
    assert found is not None
    assert found.step == 10
    assert [line.split()[0] for line in passed_over] == ["checkpoint-20", "checkpoint-15"]


def test_nothing_to_resume_from_is_no_error(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "absent") == (None, ())


def test_a_manifest_cannot_point_outside_its_directory(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "secret").write_bytes(b"")
    manifest = tmp_path / "checkpoint-1" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"empty"', '"../secret"'))
    assert "../secret is missing" in verify_checkpoint(tmp_path / "checkpoint-1")


def test_rotation_keeps_the_limit_and_never_removes_a_protected_step(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 5, 6)
    removed = rotate(tmp_path, limit=3, protected={1, 6})
    assert [c.step for c in list_checkpoints(tmp_path)] == [1, 5, 6]
    assert {c.step for c in removed} == {2, 3, 4}


def test_limit_zero_leaves_only_what_is_protected(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    rotate(tmp_path, limit=0, protected={2})
    assert [c.step for c in list_checkpoints(tmp_path)] == [2]


def test_a_failed_save_leaves_the_old_checkpoint_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 5)

    def full_disk(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_bytes", full_disk)
    with pytest.raises(RunError, match="No space left"):
        write(tmp_path, 5)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-5"]
    assert verify_checkpoint(tmp_path / "checkpoint-5") == ""


def test_a_checkpoint_written_again_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write(tmp_path, 5)
    write_checkpoint(tmp_path, 5, iter([("other", b"x")]))
    assert {p.name for p in (tmp_path / "checkpoint-5").iterdir()} == {"other", MANIFEST}
