"""What is written is complete or absent."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from llamafarm import files
from llamafarm.files import (
    append_stream,
    exchange,
    fsync_tree,
    is_open_file,
    make_directory,
    remove_stale_stages,
    staged_directory,
    write_bytes,
    write_bytes_atomic,
    write_json_atomic,
)

from .disk_faults import CRASHES, Crash, crash_at_every_call, fail_at_every_call, watched

OLD, NEW = {"a": b"old a" * 50, "b": b"old b"}, {"a": b"new a" * 50, "c": b"new c"}


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def stage(final: Path, files_of_it: dict[str, bytes]) -> None:
    with staged_directory(final) as staged:
        for name, data in files_of_it.items():
            write_bytes(staged / name, data)


def emptied(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


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


# Writing.


def test_a_write_that_the_disk_takes_in_parts_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    write_bytes(tmp_path / "a", b"0123456789" * 10)
    write_bytes(tmp_path / "b", memoryview(b"0123456789" * 10))
    with append_stream(tmp_path / "c") as stream:
        stream.write(b"0123456789" * 10)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"0123456789" * 10}


def test_a_disk_that_takes_nothing_is_an_error_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    with pytest.raises(OSError, match="Input/output") as caught:
        write_bytes(tmp_path / "a", b"x")
    assert caught.value.filename == str(tmp_path / "a")
    assert names(tmp_path) == []


def test_writing_a_large_file_copies_nothing(tmp_path: Path) -> None:
    data = bytes(1 << 24)
    tracemalloc.start()
    try:
        write_bytes(tmp_path / "a", data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_error_of_the_disk_names_the_path(tmp_path: Path) -> None:
    def work() -> None:
        stage(tmp_path / "final", NEW)

    for name, error in fail_at_every_call(lambda: None, work, errno.EIO):
        if name in ("write", "fsync"):
            assert isinstance(error, OSError)
            assert str(tmp_path) in str(error.filename)


def test_appending_goes_to_the_end_and_is_durable_when_the_block_ends(tmp_path: Path) -> None:
    calls: list[str] = []
    write_bytes(tmp_path / "a", b"head")
    with watched(lambda name, _: calls.append(name)), append_stream(tmp_path / "a") as stream:
        assert stream.tell() == 4
        stream.write(b"body")
        stream.writelines([b"1", b"2"])
    assert (tmp_path / "a").read_bytes() == b"headbody12"
    assert calls[-1] == "fsync"


def test_an_error_while_appending_is_not_hidden_by_what_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(KeyboardInterrupt), append_stream(tmp_path / "a") as stream:
        stream.write(b"x")
        monkeypatch.setattr(os, "write", full)
        raise KeyboardInterrupt


def test_a_directory_is_made_with_its_parents_and_each_is_durable(tmp_path: Path) -> None:
    synced: list[int] = []

    def before(name: str, arguments: tuple[int, ...]) -> None:
        if name == "fsync":
            synced.append(os.fstat(arguments[0]).st_ino)

    with watched(before):
        make_directory(tmp_path / "a" / "b")
        make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "file")


def test_a_tree_is_durable_file_by_file_whoever_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_text("x")
    (tmp_path / "tree" / "link").symlink_to("/nowhere")
    synced: set[int] = set()

    def before(name: str, arguments: tuple[int, ...]) -> None:
        synced.add(os.fstat(arguments[0]).st_ino)

    with watched(before):
        fsync_tree(tmp_path / "tree")
    parts = ("tree", "tree/sub", "tree/sub/file")
    assert synced == {(tmp_path / part).stat().st_ino for part in parts}


def test_a_file_system_that_cannot_sync_a_directory_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    write_bytes_atomic(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


# Links.


def test_a_link_in_the_place_of_a_stage_is_removed_and_never_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "precious").write_text("x")
    for name in ("final", "old-final"):
        (inside / f".tmp-{name}-{os.getpid()}").symlink_to(outside)
    (inside / f".tmp-final-{os.getpid()}.old").symlink_to(outside)
    (inside / f".tmp-file-{os.getpid()}").symlink_to(outside / "precious")
    stage(inside / "final", NEW)
    write_bytes_atomic(inside / "file", b"y")
    assert content(outside) == {"precious": b"x"}
    assert content(inside / "final") == NEW


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("target", ["outside", "nowhere"])
def test_a_link_in_the_place_of_a_directory_is_replaced_and_not_written_through(
    tmp_path: Path, target: str, swaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda first, second: False)
    inside = tmp_path / "inside"
    (tmp_path / "outside").mkdir()
    inside.mkdir()
    (inside / "final").symlink_to(tmp_path / target)
    stage(inside / "final", NEW)
    assert not (inside / "final").is_symlink()
    assert content(inside / "final") == NEW
    assert names(tmp_path / "outside") == []
    assert names(inside) == ["final"]


# Swapping names.


def test_two_names_are_swapped_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("file")
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot")
    assert (tmp_path / "b").is_dir()
    assert (tmp_path / "a").read_text() == "file"
    with pytest.raises(FileNotFoundError) as caught:
        exchange(tmp_path / "a", tmp_path / "absent")
    assert caught.value.filename == str(tmp_path / "a")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_that_cannot_swap_names_says_so(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def renameat2(self, *arguments: object) -> int:
            return -1

        renamex_np = renameat2

    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: Library())
    monkeypatch.setattr(files.ctypes, "get_errno", lambda: number)
    assert not exchange(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    assert not exchange(tmp_path / "a", tmp_path / "b")


def test_readers_of_a_directory_that_is_replaced_always_find_one(tmp_path: Path) -> None:
    final, missing = tmp_path / "final", []
    stage(final, OLD)
    if not exchange(final, final):
        pytest.skip("this file system cannot")
    with watched(lambda *_: missing.append(not final.is_dir())):
        stage(final, NEW)
    assert missing
    assert not any(missing)


# Recovery.


def test_what_was_renamed_aside_gets_its_name_back_unless_it_was_replaced(tmp_path: Path) -> None:
    for aside in (".tmp-lost-7.old", ".tmp-replaced-7.old", ".tmp-with-dash-8.old"):
        (tmp_path / aside).mkdir()
        (tmp_path / aside / "old").write_text("x")
    (tmp_path / "replaced").mkdir()
    removed = remove_stale_stages(tmp_path)
    assert names(tmp_path) == ["lost", "replaced", "with-dash"]
    assert names(tmp_path / "lost") == names(tmp_path / "with-dash") == ["old"]
    assert names(tmp_path / "replaced") == []
    assert [path.name for path in removed] == [".tmp-replaced-7.old"]


def test_a_stage_is_never_taken_for_a_directory_that_was_renamed_aside(tmp_path: Path) -> None:
    for left in (".tmp-old-model-7", ".tmp-x.old-7", ".tmp-.old", ".tmp-7.old"):
        (tmp_path / left).mkdir()
    remove_stale_stages(tmp_path)
    assert names(tmp_path) == []


def test_the_newest_of_several_is_given_the_name(tmp_path: Path) -> None:
    for age, pid in ((30, 1), (10, 2), (20, 3)):
        aside = tmp_path / f".tmp-final-{pid}.old"
        aside.mkdir()
        (aside / str(pid)).write_text("")
        os.utime(aside, (1_000_000 - age, 1_000_000 - age))
    remove_stale_stages(tmp_path)
    assert names(tmp_path) == ["final"]
    assert names(tmp_path / "final") == ["2"]


def test_a_write_gives_the_name_back_first_so_that_an_error_leaves_the_old_one(
    tmp_path: Path,
) -> None:
    stage(tmp_path / "final", OLD)
    (tmp_path / "final").rename(tmp_path / ".tmp-final-999999999.old")
    with pytest.raises(KeyError), staged_directory(tmp_path / "final"):
        raise KeyError
    assert content(tmp_path / "final") == OLD
    assert names(tmp_path) == ["final"]
    (tmp_path / "final").rename(tmp_path / ".tmp-final-999999999.old")
    stage(tmp_path / "final", NEW)
    assert content(tmp_path / "final") == NEW
    assert names(tmp_path) == ["final"]


def test_a_number_that_an_earlier_process_had_is_no_trouble(tmp_path: Path) -> None:
    for left in (f".tmp-final-{os.getpid()}", f".tmp-final-{os.getpid()}.old"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "half").write_text("x")
    (tmp_path / f".tmp-file-{os.getpid()}").mkdir()
    stage(tmp_path / "final", NEW)
    write_bytes_atomic(tmp_path / "file", b"x")
    assert content(tmp_path / "final") == NEW
    assert names(tmp_path) == ["file", "final"]


def test_remains_that_cannot_be_removed_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(tmp_path / "final", OLD)
    (tmp_path / ".tmp-a-1").mkdir()
    (tmp_path / ".tmp-b-1").write_text("")

    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "rmdir", busy)
    monkeypatch.setattr(os, "unlink", busy)
    assert remove_stale_stages(tmp_path) == ()
    stage(tmp_path / "final", NEW)
    assert content(tmp_path / "final") == NEW


def test_a_cleaning_that_fails_does_not_hide_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with pytest.raises(KeyError, match="why"), staged_directory(tmp_path / "final"):
        monkeypatch.setattr(os, "rmdir", busy)
        raise KeyError("why")


def test_an_open_file_is_known_by_its_name_until_another_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("w") as stream:
        assert is_open_file(stream.fileno(), path)
        path.unlink()
        assert not is_open_file(stream.fileno(), path)
        path.write_text("")
        assert not is_open_file(stream.fileno(), path)


# Crashes at every call: the old state or the new one, never neither.


@pytest.mark.parametrize("crash", [Crash(), Crash(power=True)], ids=str)
def test_a_file_is_old_or_new_wherever_the_write_ends(tmp_path: Path, crash: Crash) -> None:
    root, old, new = tmp_path / "root", b"old" * 500, b"new" * 700

    def prepare() -> None:
        write_bytes_atomic(emptied(root) / "a", old)

    calls = []
    for call in crash_at_every_call(
        root, prepare, lambda: write_bytes_atomic(root / "a", new), crash
    ):
        remove_stale_stages(root)
        assert content(root) in ({"a": old}, {"a": new}), call
        calls.append(call)
    assert calls == ["create", "write", "fsync", "replace", "fsync", "finished"]
    assert content(root) == {"a": new}


@pytest.mark.parametrize("crash", [Crash(), Crash(power=True)], ids=str)
def test_a_new_directory_is_whole_or_absent_wherever_the_write_ends(
    tmp_path: Path, crash: Crash
) -> None:
    root, calls = tmp_path / "root", []
    for call in crash_at_every_call(
        root, lambda: void(emptied(root)), lambda: stage(root / "final", NEW), crash
    ):
        remove_stale_stages(root)
        assert names(root) in ([], ["final"]), call
        assert names(root) == [] or content(root / "final") == NEW, call
        calls.append(call)
    assert len(calls) >= 9
    assert content(root / "final") == NEW


@pytest.mark.parametrize("crash", CRASHES, ids=str)
def test_a_directory_is_old_or_new_wherever_its_replacement_ends(
    tmp_path: Path, crash: Crash
) -> None:
    root, calls = tmp_path / "root", []

    def prepare() -> None:
        stage(emptied(root) / "final", OLD)

    for call in crash_at_every_call(root, prepare, lambda: stage(root / "final", NEW), crash):
        remove_stale_stages(root)
        assert names(root) == ["final"], call
        assert content(root / "final") in (OLD, NEW), call
        calls.append(call)
    assert ("exchange" in calls) == crash.exchange
    assert len(calls) >= 12
    assert content(root / "final") == NEW


def void(_: object) -> None:
    pass


# Errors at every call.


def _write_file(root: Path) -> None:
    write_bytes_atomic(root / "final" / "a", NEW["a"])


def _write_directory(root: Path) -> None:
    stage(root / "final", NEW)


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("write", [_write_file, _write_directory])
def test_an_error_at_any_call_leaves_the_old_state_or_the_new_one_and_no_remains(
    tmp_path: Path, write: Callable[[Path], None], swaps: bool
) -> None:
    root = tmp_path / "root"
    new = NEW if write is _write_directory else {**OLD, "a": NEW["a"]}
    for call, error in fail_at_every_call(
        lambda: stage(emptied(root) / "final", OLD),
        lambda: write(root),
        errno.EIO,
        exchange=swaps,
    ):
        found = content(root / "final")
        # A file that was replaced is not put back where only the last fsync failed.
        last_sync = write is _write_file and call == "fsync" and found == new
        assert found == (OLD if error else new) or last_sync, call
        remains = [path.name for path in root.rglob(".tmp-*")]
        # What the disk would not remove stays, and only that.
        assert not remains or call in ("unlink", "rmdir", "rename"), (call, remains)
        remove_stale_stages(root)
        assert names(root) == ["final"]
