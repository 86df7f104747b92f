from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from llamafarm.cache import build_once, cache_root, packages_root
from llamafarm.errors import OutputError, RunError


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
