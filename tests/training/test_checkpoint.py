"""Checkpoints are complete or absent, and damage never goes unnoticed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import RunError
from llamafarm.training.checkpoint import (
    MANIFEST,
    SaveFailed,
    checkpoint_files,
    list_checkpoints,
    newest_valid,
    rotate,
    verify_checkpoint,
    write_checkpoint,
)
from llamafarm.training.run_directory import open_run_directory
from tests.disk_faults import CRASHES, Crash, crash_at_every_call, fail_at_every_call

FILES = [("model.safetensors", b"weights" * 100), ("trainer_state.json", b"{}"), ("empty", b"")]


def write(root: Path, *steps: int) -> None:
    for step in steps:
        write_checkpoint(root, step, iter(FILES))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints, to be copied: that is faster than to write them."""
    run = tmp_path_factory.mktemp("saved")
    write(run / "checkpoints", 1, 2, 3, 4, 5, 7)
    return run


def copied(saved: Path, run: Path, *steps: int) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    for step in steps:
        name = f"checkpoints/checkpoint-{step}"
        shutil.copytree(saved / name, run / name)
    return run / "checkpoints"


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
    assert verify_checkpoint(tmp_path / "checkpoint-1") == (
        "its manifest.json cannot be read: file 3 has no name of a file beside it"
    )


def test_rotation_keeps_the_limit_and_never_removes_a_protected_step(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 5, 6)
    rotated = rotate(tmp_path, limit=3, protected={1, 6})
    assert [c.step for c in list_checkpoints(tmp_path)] == [1, 5, 6]
    assert [c.step for c in rotated.removed] == [2, 3, 4]
    assert rotated.failed == ()


def test_later_checkpoints_that_a_resume_passed_over_are_the_first_to_go(tmp_path: Path) -> None:
    write(tmp_path, 3, 6, 9, 12)
    (tmp_path / "checkpoint-9" / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "checkpoint-12" / MANIFEST).unlink()
    write(tmp_path, 7)
    rotate(tmp_path, limit=3, protected={7})
    assert [c.step for c in list_checkpoints(tmp_path)] == [3, 6, 7]


@pytest.mark.parametrize("limit", [5, 6, 7, 20])
def test_nothing_is_removed_below_the_limit(limit: int, tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 5)
    assert rotate(tmp_path, limit=limit, protected={2, 5}).removed == ()
    assert [c.step for c in list_checkpoints(tmp_path)] == [1, 2, 3, 4, 5]


def test_limit_zero_leaves_only_what_is_protected(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    rotate(tmp_path, limit=0, protected={2})
    assert [c.step for c in list_checkpoints(tmp_path)] == [2]


def test_a_checkpoint_written_again_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write(tmp_path, 5)
    write_checkpoint(tmp_path, 5, iter([("other", b"x")]))
    assert {p.name for p in (tmp_path / "checkpoint-5").iterdir()} == {"other", MANIFEST}


# What is no checkpoint.


def _manifest(checkpoint: Path, **changed: Any) -> None:
    path = checkpoint / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def _first_file(checkpoint: Path, **changed: Any) -> None:
    first, *others = json.loads((checkpoint / MANIFEST).read_text())["files"]
    _manifest(checkpoint, files=[first | changed, *others])


def _twice(checkpoint: Path) -> None:
    listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
    _manifest(checkpoint, files=[*listed, listed[0]])


def _link(checkpoint: Path) -> None:
    (checkpoint / "empty").rename(checkpoint.parent / "elsewhere")
    (checkpoint / "empty").symlink_to(checkpoint.parent / "elsewhere")


def _pipe(checkpoint: Path) -> None:
    (checkpoint / "empty").unlink()
    os.mkfifo(checkpoint / "empty")


def _link_as_manifest(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).rename(checkpoint.parent / "elsewhere")
    (checkpoint / MANIFEST).symlink_to(checkpoint.parent / "elsewhere")


Damage = Callable[[Path], object]
DAMAGES: list[tuple[Damage, str]] = [
    (lambda c: _manifest(c, schema=2), "has schema 2, and this version reads 1"),
    (lambda c: _manifest(c, schema=True), "it has no schema"),
    (lambda c: _manifest(c, schema=None), "it has no schema"),
    (lambda c: _manifest(c, step=8), "is of step 8"),
    (lambda c: _manifest(c, step="7"), "it has no step"),
    (lambda c: _manifest(c, files=None), "it has no files"),
    (lambda c: _manifest(c, files=["a"]), "file 1 is not an object"),
    (lambda c: _manifest(c, files=[]), "which its manifest.json does not list"),
    (lambda c: _first_file(c, name="../elsewhere"), "file 1 has no name"),
    (lambda c: _first_file(c, name="a\x1b[2J"), "file 1 has no name"),
    (lambda c: _first_file(c, name="\ud800"), "file 1 has no name"),
    (lambda c: _first_file(c, name="x" * 300), "cannot be read: File name too long"),
    (lambda c: _first_file(c, name=MANIFEST), "file 1 has no name"),
    (lambda c: _first_file(c, name=".."), "file 1 has no name"),
    (lambda c: _first_file(c, name=3), "file 1 has no name"),
    (lambda c: _first_file(c, size=-1), "file 1 has no size"),
    (lambda c: _first_file(c, size=700.0), "file 1 has no size"),
    (lambda c: _first_file(c, size=True), "file 1 has no size"),
    (lambda c: _first_file(c, size=10**30), "has 700 bytes instead of 1,000"),
    (lambda c: _first_file(c, sha256="0" * 64), "model.safetensors was changed"),
    (lambda c: _first_file(c, sha256="0" * 63), "file 1 has no SHA-256"),
    (lambda c: _first_file(c, sha256=None), "file 1 has no SHA-256"),
    (_twice, "lists a file twice"),
    (lambda c: (c / MANIFEST).write_bytes(b"[]"), "it is not an object"),
    (lambda c: (c / MANIFEST).write_bytes(b""), "it is not JSON"),
    (lambda c: (c / MANIFEST).write_bytes(b"\xff\xfe{"), "it is not JSON"),
    (lambda c: (c / MANIFEST).write_bytes(b"[" * 500_000), "it is not JSON"),
    (lambda c: (c / MANIFEST).write_bytes(b'{"schema": ' + b"1" * 9_999), "it is not JSON"),
    (lambda c: (c / MANIFEST).write_bytes(b" " * (1 << 21)), "more than 1,048,576 bytes"),
    (lambda c: (c / MANIFEST).unlink(), "it has no manifest.json"),
    (_link_as_manifest, "manifest.json cannot be read: it is a symbolic link"),
    (lambda c: (c / "empty").unlink(), "empty is missing"),
    (lambda c: (c / "empty").write_bytes(b"x"), "empty has 1 bytes instead of 0"),
    (_link, "empty cannot be read: it is a symbolic link"),
    (_pipe, "empty is not a file"),
    (lambda c: (c / "model-2.safetensors").write_bytes(b""), "it holds model-2.safetensors"),
    (lambda c: (c / "sub").mkdir(), "it holds sub"),
    (lambda c: (c / "a\x1b[2J").write_bytes(b""), r"it holds 'a\x1b[2J'"),
    (shutil.rmtree, "it is not a directory"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=range(len(DAMAGES)))
def test_whatever_a_save_did_not_write_is_told_in_a_line_and_passed_over(
    saved: Path, tmp_path: Path, damage: Damage, said: str
) -> None:
    checkpoints = copied(saved, tmp_path, 5, 7)
    damage(checkpoints / "checkpoint-7")
    fault = verify_checkpoint(checkpoints / "checkpoint-7")
    assert said in fault
    assert fault.isprintable()
    found, _ = newest_valid(checkpoints)
    assert found is not None
    assert found.step == 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("checkpoint-007", "no step has such a name"),
        ("checkpoint-\u0667", "no step has such a name"),
        ("checkpoint-8", "its manifest.json is of step 7"),
        ("checkpoint-" + "9" * 20, "no step has such a name"),
        ("checkpoint-" + "9" * 200, "no step has such a name"),
    ],
)
def test_a_checkpoint_under_a_name_that_is_not_its_own_is_never_used(
    saved: Path, tmp_path: Path, name: str, said: str
) -> None:
    checkpoints = copied(saved, tmp_path, 5, 7)
    (checkpoints / "checkpoint-7").rename(checkpoints / name)
    assert said in verify_checkpoint(checkpoints / name)
    found, passed_over = newest_valid(checkpoints)
    assert found is not None
    assert found.step == 5
    assert passed_over[0].startswith(f"{name} cannot be used: ")
    assert said in passed_over[0]
    with pytest.raises(RunError, match="cannot be used"):
        list(checkpoint_files(checkpoints / name))


def test_a_step_of_twenty_digits_is_no_step_even_if_the_manifest_says_so(tmp_path: Path) -> None:
    write(tmp_path, 10**19)
    assert verify_checkpoint(tmp_path / f"checkpoint-{10**19}") == "no step has such a name"
    assert list_checkpoints(tmp_path) == ()


def test_a_link_to_a_checkpoint_is_none_and_is_never_removed_through(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    write(outside, 9)
    write(inside, 5, 6, 7)
    (inside / "checkpoint-9").symlink_to(outside / "checkpoint-9")
    (inside / "checkpoint-1").symlink_to(outside / "checkpoint-9")
    found, passed_over = newest_valid(inside)
    assert found is not None
    assert found.step == 7
    assert "checkpoint-9 cannot be used: it is a symbolic link" in passed_over[0]
    assert [c.step for c in list_checkpoints(inside)] == [5, 6, 7]
    rotate(inside, limit=1, protected={7})
    assert verify_checkpoint(outside / "checkpoint-9") == ""
    write(inside, 9)
    assert not (inside / "checkpoint-9").is_symlink()
    assert verify_checkpoint(outside / "checkpoint-9") == ""


def test_a_copy_may_have_any_name_and_systems_may_add_hidden_files(tmp_path: Path) -> None:
    write(tmp_path, 7)
    shutil.copytree(tmp_path / "checkpoint-7", tmp_path / "the best one")
    (tmp_path / "the best one" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "a link").symlink_to("the best one")
    assert verify_checkpoint(tmp_path / "the best one") == ""
    assert verify_checkpoint(tmp_path / "a link") == ""


@pytest.mark.parametrize("function", ["open", "read"])
def test_a_disk_that_cannot_be_read_is_told_and_an_older_checkpoint_is_used(
    tmp_path: Path, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 5, 7)
    real_open, real_read = os.open, os.read
    bad = tmp_path / "checkpoint-7" / "model.safetensors"
    sector = bad.stat().st_ino

    def refuse(path: Path, *given: Any, **named: Any) -> int:
        if Path(path) == bad:
            raise OSError(errno.EIO, "Input/output error")
        return real_open(path, *given, **named)

    def refuse_reading(descriptor: int, length: int) -> bytes:
        if os.fstat(descriptor).st_ino == sector:
            raise OSError(errno.EIO, "Input/output error")
        return real_read(descriptor, length)

    monkeypatch.setattr(os, function, refuse if function == "open" else refuse_reading)
    found, passed_over = newest_valid(tmp_path)
    assert found is not None
    assert found.step == 5
    assert passed_over == (
        "checkpoint-7 cannot be used: model.safetensors cannot be read: Input/output error",
    )


def test_checkpoints_that_cannot_be_listed_stop_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 5)

    def refuse(_: Path) -> Iterator[Path]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", refuse)
    for look in (newest_valid, list_checkpoints):
        with pytest.raises(RunError, match="cannot be read: Input/output error"):
            look(tmp_path)


def test_files_are_compared_with_the_manifest_when_they_are_taken(tmp_path: Path) -> None:
    write(tmp_path, 7)
    file = tmp_path / "checkpoint-7" / "model.safetensors"
    file.write_bytes(b"W" + file.read_bytes()[1:])
    with pytest.raises(RunError, match=r"model\.safetensors was changed after it was written"):
        list(checkpoint_files(tmp_path / "checkpoint-7"))
    names = [name for name, _ in checkpoint_files(file.parent, leave_out={file.name})]
    assert names == ["trainer_state.json", "empty"]


# Writing.


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/x", MANIFEST, "a\0b"])
def test_a_file_can_only_be_written_into_the_checkpoint_itself(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        write_checkpoint(tmp_path, 1, [(name, b"")])
    assert list(tmp_path.iterdir()) == []


def test_writing_hashing_and_verifying_copy_nothing(tmp_path: Path) -> None:
    data = memoryview(bytes(1 << 25))
    tracemalloc.start()
    try:
        written = write_checkpoint(tmp_path, 1, iter([("weights", data)]))
        fault = verify_checkpoint(written.checkpoint.path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()
    assert fault == ""
    assert written.num_bytes == 1 << 25


@pytest.mark.parametrize(("free", "fits"), [(10_000_000, False), (12_000_000, True)])
def test_nothing_is_written_where_the_disk_has_no_room(
    tmp_path: Path, free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    written: list[str] = []

    def contents() -> Iterator[tuple[str, bytes]]:
        written.append("begun")
        yield from FILES

    if fits:
        write_checkpoint(tmp_path, 1, contents(), expected_bytes=10_000_000)
        return
    with pytest.raises(SaveFailed) as caught:
        write_checkpoint(tmp_path, 1, contents(), expected_bytes=10_000_000)
    assert written == []
    assert list(tmp_path.iterdir()) == []
    assert caught.value.exit_code == 1
    assert caught.value.summary == (
        f"checkpoint-1 could not be written: No space left on device: {tmp_path} "
        "(at least 11,048,576 bytes needed, 10,000,000 free)"
    )


def test_a_file_system_that_does_not_say_what_is_free_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: object) -> object:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(shutil, "disk_usage", unknown)
    write_checkpoint(tmp_path, 1, iter(FILES), expected_bytes=10**15)
    assert verify_checkpoint(tmp_path / "checkpoint-1") == ""


def test_memory_that_runs_out_is_not_a_fault_of_the_disk_and_leaves_nothing(tmp_path: Path) -> None:
    def contents() -> Iterator[tuple[str, bytes]]:
        yield FILES[0]
        raise MemoryError

    with pytest.raises(MemoryError):
        write_checkpoint(tmp_path, 1, contents())
    assert list(tmp_path.iterdir()) == []


# Rotation.


def test_nothing_is_removed_while_the_checkpoint_just_saved_does_not_stand(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    (tmp_path / "checkpoint-3" / "model.safetensors").write_bytes(b"short")
    rotated = rotate(tmp_path, limit=1, protected={3})
    assert [c.step for c in list_checkpoints(tmp_path)] == [1, 2, 3]
    assert rotated.removed == ()
    assert rotated.failed == ("nothing was removed: checkpoint-3 is not whole",)
    assert rotate(tmp_path, limit=1, protected={4}).removed == ()


def test_what_cannot_be_removed_stops_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1, 2, 3)
    real = os.unlink

    def busy(path: Any, **named: Any) -> None:
        if "checkpoint-1" in str(path):
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(path, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", busy)
        rotated = rotate(tmp_path, limit=1, protected={3})
    assert [c.step for c in rotated.removed] == [2]
    assert rotated.failed == ("checkpoint-1 could not be removed: Device or resource busy",)
    assert [c.step for c in rotate(tmp_path, limit=1, protected={3}).removed] == [1]


# A crash or an error at every call of a save and the rotation after it.


def _save_and_rotate(run: Path) -> None:
    write_checkpoint(run / "checkpoints", 4, iter(FILES), expected_bytes=1_000)
    rotate(run / "checkpoints", limit=2, protected={1, 4})


def _steps_that_verify(run: Path) -> list[int]:
    return [c.step for c in list_checkpoints(run / "checkpoints") if not verify_checkpoint(c.path)]


@pytest.mark.parametrize("crash", [Crash(), Crash(power=True)], ids=str)
def test_wherever_a_save_or_a_rotation_ends_there_is_a_whole_checkpoint(
    saved: Path, tmp_path: Path, crash: Crash
) -> None:
    run, stands, calls = tmp_path / "run", False, []
    for call in crash_at_every_call(
        run, lambda: void(copied(saved, run, 1, 2, 3)), lambda: _save_and_rotate(run), crash
    ):
        with open_run_directory(run, resume=True, overwrite=False):
            steps = _steps_that_verify(run)
            assert not list(run.rglob(".tmp-*")), call
            found, _ = newest_valid(run / "checkpoints")
        assert found is not None
        assert steps in ([1, 2, 3], [1, 2, 3, 4], [1, 3, 4], [1, 4]), call
        # From the rename on, every later point has the new one.
        assert not stands or found.step == 4, call
        stands = found.step == 4
        calls.append(call)
    assert len(calls) > 20
    assert steps == [1, 4]


@pytest.mark.parametrize("crash", CRASHES, ids=str)
def test_wherever_a_checkpoint_is_written_again_the_old_one_or_the_new_one_is_whole(
    saved: Path, tmp_path: Path, crash: Crash
) -> None:
    run = tmp_path / "run"
    new = [("model.safetensors", b"other weights")]
    for call in crash_at_every_call(
        run,
        lambda: void(copied(saved, run, 4)),
        lambda: void(write_checkpoint(run / "checkpoints", 4, iter(new))),
        crash,
    ):
        with open_run_directory(run, resume=True, overwrite=False):
            found = list(checkpoint_files(run / "checkpoints" / "checkpoint-4"))
        assert found in (FILES, new), call
    assert found == new


def void(_: object) -> None:
    pass


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_call_is_told_with_path_and_bytes_and_earlier_ones_stay(
    saved: Path, tmp_path: Path, number: int, lasting: bool
) -> None:
    run = tmp_path / "run"
    told = 0
    for call, error in fail_at_every_call(
        lambda: void(copied(saved, run, 1, 2, 3)),
        lambda: _save_and_rotate(run),
        number,
        lasting=lasting,
    ):
        steps = _steps_that_verify(run)
        if error is None:
            assert steps[0] == 1, call
            assert steps[-1] == 4, call
            continue
        assert isinstance(error, SaveFailed)
        assert os.strerror(number) in error.summary
        assert f"{run}/checkpoints" in error.summary
        assert "at least 1,049,576 bytes needed" in error.summary
        assert "needed, " in error.summary
        assert " free)" in error.summary
        assert steps == [1, 2, 3], call
        assert not list(run.rglob(".tmp-*")) or (lasting and call in ("unlink", "rmdir")), call
        told += 1
    assert told > 8


def test_a_checkpoint_of_this_version_is_what_it_was_meant_to_be(tmp_path: Path) -> None:
    write(tmp_path, 7)
    assert json.loads((tmp_path / "checkpoint-7" / MANIFEST).read_text()) == {
        "schema": 1,
        "step": 7,
        "files": [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in FILES
        ],
    }
