"""One run, one directory; nothing of an earlier run is lost unasked."""

from __future__ import annotations

import errno
import fcntl
import itertools
import multiprocessing
import os
import socket
import subprocess
import sys
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from llamafarm.errors import OutputError, RunError
from llamafarm.training import run_directory
from llamafarm.training.run_directory import check_output_directory, open_run_directory
from tests.disk_faults import Crash, crash_at_every_call, fail_at_every_call

# Above every number that a kernel gives.
DEAD = 999_999_999

HOLD = """
import sys, time
from pathlib import Path
from llamafarm.training.run_directory import open_run_directory
with open_run_directory(Path(sys.argv[1]), resume=True, overwrite=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_with_the_holder_and_a_dead_holder_leaves_no_lock(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"in use by process {holder.pid} on "):
            check_output_directory(tmp_path / "run", resume=True, overwrite=False)
        with (
            pytest.raises(OutputError, match="in use"),
            open_run_directory(tmp_path / "run", resume=True, overwrite=False),
        ):
            pass
        holder.kill()
    with open_run_directory(tmp_path / "run", resume=True, overwrite=False):
        pass


def test_a_lock_that_is_another_file_too_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    os.link(precious, run / ".lock")
    with (
        pytest.raises(OutputError, match=r"\.lock is not a lock file"),
        open_run_directory(run, resume=False, overwrite=False),
    ):
        pass
    assert precious.read_text() == "mine"


def test_a_full_disk_is_a_failed_run_that_names_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with (
        pytest.raises(RunError, match=r"\.lock cannot be written: No space left") as failed,
        open_run_directory(tmp_path / "run", resume=False, overwrite=False),
    ):
        pass
    assert failed.value.exit_code == 1


def test_a_record_of_any_depth_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[" * 100_000)
    assert run_directory.RunDirectory(tmp_path).read_run() == {}


def test_a_non_empty_directory_is_refused_with_the_three_ways_out(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(OutputError) as refused:
        check_output_directory(tmp_path, resume=False, overwrite=False)
    assert all(flag in refused.value.hint for flag in ("--resume", "--overwrite", "--output"))
    assert refused.value.exit_code == 2


def test_overwrite_removes_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    with open_run_directory(tmp_path, resume=False, overwrite=True):
        left = {p.name for p in tmp_path.iterdir()}
    assert left == {".lock", "notes.txt"}


def test_overwrite_does_not_follow_a_link_out_of_the_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").symlink_to(outside)
    with open_run_directory(run, resume=False, overwrite=True):
        pass
    assert (outside / "precious").exists()


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".tmp-checkpoint-5-123").mkdir(parents=True)
    (tmp_path / ".tmp-run.json-123").write_text("half")
    with open_run_directory(tmp_path, resume=True, overwrite=False):
        assert {p.name for p in tmp_path.iterdir()} == {".lock", "checkpoints"}
        assert not list((tmp_path / "checkpoints").iterdir())


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check_output_directory(tmp_path / "new", resume=False, overwrite=False)
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_output_directory(tmp_path / "run", resume=False, overwrite=True)


# The lock.


def _start(run: Path, barrier: Barrier, done: Event, said: SimpleQueue[tuple[int, str]]) -> None:
    """As `train` does: look first, then open. The one that runs stays until all have answered."""
    barrier.wait()
    try:
        check_output_directory(run, resume=True, overwrite=False)
        with open_run_directory(run, resume=True, overwrite=False):
            said.put((os.getpid(), "runs"))
            done.wait(60)
    except OutputError as error:
        said.put((os.getpid(), error.summary))


@pytest.mark.parametrize(
    "line", ["", f"process {DEAD} on {socket.gethostname()}\n", "process 12 o"], ids=range(3)
)
def test_of_eight_that_start_at_once_one_runs_and_the_others_name_it(
    tmp_path: Path, line: str
) -> None:
    (tmp_path / ".lock").write_text(line)
    context = multiprocessing.get_context("fork")
    barrier, done, said = context.Barrier(8), context.Event(), context.SimpleQueue()
    processes = [
        context.Process(target=_start, args=(tmp_path, barrier, done, said)) for _ in range(8)
    ]
    for process in processes:
        process.start()
    answers = dict(said.get() for _ in processes)
    done.set()
    for process in processes:
        process.join()
    [winner] = [pid for pid, answer in answers.items() if answer == "runs"]
    holder = f"in use by process {winner} on {socket.gethostname()}"
    assert [a for a in answers.values() if holder not in a] == ["runs"]
    assert (tmp_path / ".lock").read_text() == ""


def _hold_line(path: Path, line: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, line.encode())
    return descriptor


@pytest.mark.parametrize(
    ("line", "holder"),
    [
        (f"process {DEAD} on {socket.gethostname()}\n", "another process"),
        ("", "another process"),
        (f"process {DEAD} on another-host\n", f"process {DEAD} on another-host"),
        (f"process {os.getpid()} on {socket.gethostname()}\n", f"process {os.getpid()} on "),
    ],
    # Two processes that collect the tests call them the same.
    ids=["dead", "nobody yet", "of another host", "alive"],
)
def test_a_holder_that_is_dead_is_not_named(
    tmp_path: Path, line: str, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(run_directory.time, "monotonic", lambda: float(next(ticks)))
    descriptor = _hold_line(tmp_path / ".lock", line)
    with pytest.raises(OutputError, match=f"in use by {holder}"):
        check_output_directory(tmp_path, resume=True, overwrite=False)
    os.close(descriptor)


def test_a_lock_that_is_let_go_while_its_holder_is_unknown_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = _hold_line(tmp_path / ".lock", "")
    monkeypatch.setattr(run_directory.time, "sleep", lambda _: os.close(descriptor))
    with open_run_directory(tmp_path, resume=True, overwrite=False):
        said = (tmp_path / ".lock").read_text()
    assert said == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_those_who_only_look_do_not_keep_each_other_out(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / ".lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    check_output_directory(tmp_path, resume=True, overwrite=False)
    os.close(descriptor)


def test_a_lock_on_a_file_that_was_replaced_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, turns = fcntl.flock, itertools.count()

    def replaced(descriptor: int, operation: int) -> None:
        if next(turns) == 0:
            (tmp_path / ".lock").unlink()
            (tmp_path / ".lock").write_text("")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replaced)
    with open_run_directory(tmp_path, resume=True, overwrite=False):
        monkeypatch.undo()
        with pytest.raises(OutputError, match=f"in use by process {os.getpid()} on "):
            check_output_directory(tmp_path, resume=True, overwrite=False)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_called_in_use(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with (
        pytest.raises(OutputError) as caught,
        open_run_directory(tmp_path, resume=True, overwrite=False),
    ):
        pass
    assert f"the file system of {tmp_path} has no locks" in caught.value.summary
    assert "in use" not in caught.value.render()
    assert "--output DIR" in caught.value.hint
    assert caught.value.exit_code == 2


# Links.


@pytest.mark.parametrize(
    "name", ["checkpoints", "final_model", "logs", "gguf", "metrics.jsonl", "run.json", ".lock"]
)
def test_a_link_inside_is_refused_by_name_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.mkdir()
    (outside / ".tmp-precious-1").write_text("x")
    (run / name).symlink_to(outside)
    for refused in (
        lambda: check_output_directory(run, resume=True, overwrite=False),
        lambda: open_run_directory(run, resume=True, overwrite=False).__enter__(),
    ):
        with pytest.raises(OutputError) as caught:
            refused()
        assert f"{run / name} is a link to {outside}" in caught.value.summary
    assert [p.name for p in outside.iterdir()] == [".tmp-precious-1"]


def test_the_directory_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with open_run_directory(tmp_path / "run", resume=True, overwrite=False) as directory:
        directory.checkpoints.mkdir()
    check_output_directory(tmp_path / "run", resume=True, overwrite=False)
    assert (tmp_path / "disk" / "checkpoints").is_dir()


# Faults of the disk.


def test_what_a_killed_write_renamed_aside_is_there_again(tmp_path: Path) -> None:
    for part in ("checkpoints/.tmp-checkpoint-5-123.old", ".tmp-final_model-123.old"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "weights").write_text("x")
    with open_run_directory(tmp_path, resume=True, overwrite=False) as directory:
        assert (directory.checkpoints / "checkpoint-5" / "weights").exists()
        assert (directory.final_model / "weights").exists()


def test_an_error_of_the_disk_at_any_call_is_the_users_to_know(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def prepare() -> None:
        (run / "checkpoints" / "checkpoint-1").mkdir(parents=True, exist_ok=True)
        (run / "run.json").write_text("{}")

    def work() -> None:
        with open_run_directory(run, resume=False, overwrite=True):
            pass

    told = 0
    for call, error in fail_at_every_call(prepare, work, errno.EIO):
        assert isinstance(error, OutputError), call
        assert f"the output directory {run} cannot be written: Input/output" in error.summary
        told += 1
    assert told > 4


@pytest.mark.parametrize("crash", [Crash(), Crash(power=True)], ids=str)
def test_an_overwrite_that_is_cut_short_leaves_all_checkpoints_with_their_metrics_or_none(
    tmp_path: Path, crash: Crash
) -> None:
    run = tmp_path / "run"

    def prepare() -> None:
        for name in ("checkpoint-1", "checkpoint-2"):
            (run / "checkpoints" / name).mkdir(parents=True, exist_ok=True)
        for name in ("run.json", "metrics.jsonl"):
            (run / name).write_text("{}")

    def work() -> None:
        with open_run_directory(run, resume=False, overwrite=True):
            pass

    for call in crash_at_every_call(run, prepare, work, crash):
        with open_run_directory(run, resume=True, overwrite=False) as directory:
            if directory.checkpoints.exists():
                left = {path.name for path in directory.checkpoints.iterdir()}
                assert left == {"checkpoint-1", "checkpoint-2"}, call
                assert directory.run_file.exists(), call
                assert directory.metrics_file.exists(), call
    assert {p.name for p in run.iterdir()} == {".lock"}
