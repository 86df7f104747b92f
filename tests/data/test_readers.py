from __future__ import annotations

import hashlib
import os
import socket
import sys
from pathlib import Path

import pytest

from llamafarm.data.readers import display_name, open_source
from llamafarm.errors import DataError

ROW = b'{"question": "Why?", "answer": "Because."}\n'


def test_a_missing_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "medical_qa.jsonl").write_bytes(ROW)
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "medical_aq.jsonl")
    assert "does not exist" in caught.value.summary
    assert f"did you mean {tmp_path / 'medical_qa.jsonl'}?" in caught.value.hint


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist either"):
        open_source(tmp_path / "nowhere" / "rows.jsonl")


def test_a_directory_is_refused_and_what_it_holds_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW)
    with pytest.raises(DataError, match=r"is a directory; it holds a\.jsonl"):
        open_source(tmp_path)


def test_a_pipe_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    os.mkfifo(path)
    with pytest.raises(DataError, match="is a pipe, not a regular file"):
        open_source(path)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("rows.jsonl")
        with pytest.raises(DataError, match="is a socket, not a regular file"):
            open_source(Path("rows.jsonl"))


def test_a_device_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is a device, not a regular file"):
        open_source(path)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.symlink_to(path)
    with pytest.raises(DataError, match="cannot be read: Too many levels of symbolic links"):
        open_source(path)


def test_a_link_to_nothing_is_refused_with_the_name_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"is a link to .*gone\.jsonl, which does not exist"):
        open_source(path)


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW)
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "a.jsonl" / "b.jsonl")


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no file name"):
        open_source(tmp_path / "a\0b.jsonl")
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        open_source(tmp_path / f"{'a' * 300}.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_file_that_the_system_does_not_give_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match="cannot be read: Input/output error"):
        open_source(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW)
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("r.txt", "`llamafarm prepare {}/r.txt --output data.jsonl`"),
        ("r.md", "`llamafarm prepare {}/r.md --output data.jsonl`"),
        ("r s.pdf", "`llamafarm prepare '{}/r s.pdf' --output data.jsonl`"),
        ("r s.zip", "`unzip '{}/r s.zip'`"),
        ("r.xlsx", "as CSV"),
        ("r.jsonl.bz2", "bunzip2 -k"),
        ("r.tar.gz", "tar -xf"),
        ("r.pkl", ".jsonl, .json, .csv"),
        ("rows", ".jsonl, .json, .csv"),
    ],
)
def test_other_kinds_of_file_are_refused_with_a_way_out(
    name: str, hint: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(ROW)
    with pytest.raises(DataError) as caught:
        open_source(path)
    assert hint.format(tmp_path) in caught.value.hint


def test_the_fingerprint_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(ROW)
    assert open_source(path).sha256 == hashlib.sha256(ROW).hexdigest()


def test_a_file_that_begins_with_many_blank_lines_is_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\n" * 2000 + ROW)
    assert [item.source.line for item in open_source(path).items()] == [2001]


def test_records_can_be_read_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(ROW * 3)
    source = open_source(path)
    assert list(source.items()) == list(source.items())


def test_a_file_that_changes_between_two_readings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(ROW)
    source = open_source(path)
    assert list(source.items())
    path.write_bytes(ROW + ROW)
    with pytest.raises(DataError, match="changed while it was read"):
        list(source.items())


def test_a_file_that_goes_away_between_two_readings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(ROW)
    source = open_source(path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        list(source.items())


def test_names_are_relative_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert display_name(tmp_path / "sub" / "r.jsonl") == "sub/r.jsonl"
    assert display_name(Path("r.jsonl")) == "r.jsonl"
    assert display_name(Path("/elsewhere/r.jsonl")) == "/elsewhere/r.jsonl"
