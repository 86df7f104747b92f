from __future__ import annotations

import errno
import fcntl
import itertools
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from llamafarm.cache import build_once, cache_root, packages_root
from llamafarm.errors import OutputError, RunError
from llamafarm.files import write_bytes

from .disk_faults import Crash, crash_at_every_call, fail_at_every_call, watched


def test_cache_is_where_the_variable_says(cache_dir: Path) -> None:
    assert cache_root() == cache_dir


def test_cache_follows_xdg_on_linux_and_ignores_a_relative_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LLAMAFARM_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "llamafarm"
    assert packages_root() == tmp_path / "home/.local/share/llamafarm/packages"


def test_cache_is_in_library_on_macos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LLAMAFARM_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / "Library/Caches/llamafarm"
    assert packages_root() == tmp_path / "Library/Application Support/llamafarm/packages"


def test_a_directory_is_built_only_once(tmp_path: Path) -> None:
    builds: list[Path] = []

    def build(stage: Path) -> None:
        builds.append(stage)
        (stage / "file").write_text("x")

    assert build_once(tmp_path / "kind/entry", build) == tmp_path / "kind/entry"
    build_once(tmp_path / "kind/entry", build)
    assert len(builds) == 1
    assert (tmp_path / "kind/entry/file").read_text() == "x"


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(stage: Path) -> None:
        (stage / "half").write_text("x")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        build_once(tmp_path / "kind/entry", fail)
    assert [p.name for p in (tmp_path / "kind").iterdir()] == [".lock"]
    build_once(tmp_path / "kind/entry", lambda stage: None)
    assert (tmp_path / "kind/entry").is_dir()


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "kind" / ".tmp-entry-999999"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    build_once(tmp_path / "kind/entry", lambda stage: None)
    assert not left.exists()


def test_a_full_disk_is_a_failed_run_and_another_fault_is_the_users(tmp_path: Path) -> None:
    def full(stage: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def forbidden(stage: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.raises(RunError, match="disk is full") as full_disk:
        build_once(tmp_path / "kind/entry", full)
    assert "LLAMAFARM_CACHE" in full_disk.value.hint
    with pytest.raises(OutputError, match="Permission denied"):
        build_once(tmp_path / "kind/entry", forbidden)


def _slow_build(target: Path, log: Path) -> None:
    def build(stage: Path) -> None:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)

    build_once(target, build)


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "kind/entry", tmp_path / "log")
    processes = [context.Process(target=_slow_build, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_an_entry_that_a_killed_process_had_renamed_aside_is_not_built_again(
    tmp_path: Path,
) -> None:
    aside = tmp_path / "kind" / ".tmp-entry-999999999.old"
    aside.mkdir(parents=True)
    (aside / "file").write_text("x")
    build_once(tmp_path / "kind/entry", lambda stage: pytest.fail("built again"))
    assert sorted(p.name for p in (tmp_path / "kind").iterdir()) == [".lock", "entry"]
    assert (tmp_path / "kind/entry/file").read_text() == "x"


def test_a_lock_of_a_cache_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, real, turns = tmp_path / "kind" / ".lock", fcntl.flock, itertools.count()

    def removed(file: object, operation: int) -> None:
        if next(turns) == 0:
            lock.unlink()
        real(file, operation)  # type: ignore[arg-type]

    def build(stage: Path) -> None:
        with lock.open() as other, pytest.raises(BlockingIOError):
            real(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(fcntl, "flock", removed)
    build_once(tmp_path / "kind/entry", build)
    assert next(turns) == 2


def test_what_a_builder_wrote_is_durable_before_it_has_its_name(tmp_path: Path) -> None:
    synced: set[int] = set()

    def before(name: str, arguments: tuple[int, ...]) -> None:
        if name == "fsync":
            synced.add(os.fstat(arguments[0]).st_ino)
        elif name == "rename":
            assert {p.stat().st_ino for p in Path(arguments[0]).rglob("*")} <= synced

    def build(stage: Path) -> None:
        (stage / "sub").mkdir()
        (stage / "sub" / "file").write_text("x")

    with watched(before):
        build_once(tmp_path / "kind/entry", build)
    assert (tmp_path / "kind/entry/sub/file").stat().st_ino in synced


@pytest.mark.parametrize("crash", [Crash(), Crash(power=True)], ids=str)
def test_wherever_a_build_ends_the_next_one_makes_the_whole_entry(
    tmp_path: Path, crash: Crash
) -> None:
    root = tmp_path / "root"
    entry = root / "kind" / "entry"

    def build(stage: Path) -> None:
        write_bytes(stage / "a", b"a" * 99)
        write_bytes(stage / "b", b"b")

    def prepare() -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()

    for call in crash_at_every_call(root, prepare, lambda: void(build_once(entry, build)), crash):
        assert not entry.is_dir() or (entry / "a").read_bytes() == b"a" * 99, call
        build_once(entry, build)
        assert {p.name: p.read_bytes() for p in entry.iterdir()} == {"a": b"a" * 99, "b": b"b"}
        assert sorted(p.name for p in entry.parent.iterdir()) == [".lock", "entry"]


def void(_: object) -> None:
    pass


def test_an_error_at_any_call_of_a_build_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    told = 0
    for call, error in fail_at_every_call(
        lambda: shutil.rmtree(root, ignore_errors=True),
        lambda: void(build_once(root / "kind/entry", lambda stage: write_bytes(stage / "a", b"x"))),
        errno.ENOSPC,
    ):
        if error is None:
            # There was nothing left to remove.
            assert call == "unlink"
            continue
        assert isinstance(error, RunError), call
        assert "disk is full" in error.summary
        assert not list(root.rglob("*entry*")), call
        told += 1
    assert told > 6
