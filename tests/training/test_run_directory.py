"""One run, one directory; nothing of an earlier run is lost unasked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llamafarm.errors import OutputError
from llamafarm.training.run_directory import check_output_directory, open_run_directory

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
