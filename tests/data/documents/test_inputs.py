from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import pytest

from llamafarm.data.documents.inputs import check_output, find_inputs
from llamafarm.data.documents.request import PrepareRequest
from llamafarm.errors import DataError, OutputError, UserError

from .made_files import write


def test_a_directory_means_every_file_in_it_that_can_be_read(tmp_path: Path) -> None:
    for name in (
        "b.md",
        "a.txt",
        "sub/c.JSONL",
        "sub/d.txt.gz",
        ".hidden.txt",
        ".git/e.txt",
        "f.png",
    ):
        write(tmp_path / name, "x")
    inputs = find_inputs([tmp_path])
    names = [str(file.path.relative_to(tmp_path)) for file in inputs.files]
    assert names == ["a.txt", "b.md", "sub/c.JSONL", "sub/d.txt.gz"]
    assert [file.kind for file in inputs.files] == ["text", "Markdown", "JSONL", "text"]
    (notice,) = inputs.notices
    assert notice.endswith("1 file of other kinds not read: f.png")


def test_a_file_is_read_once_however_often_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "x")
    (tmp_path / "link.txt").symlink_to(path)
    inputs = find_inputs([path, tmp_path, path])
    assert [file.path for file in inputs.files] == [path]
    assert inputs.notices == ("3 files named twice, read once",)


def test_every_path_that_cannot_be_read_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "x")
    write(tmp_path / "old.doc", "x")
    write(tmp_path / "README", "x")
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / name for name in ("note.txt", "old.doc", "README", "empty")]
    with pytest.raises(DataError, match="4 inputs cannot be read") as caught:
        find_inputs(paths)
    hints = [problem.hint for problem in caught.value.problems]
    assert "did you mean" in hints[0]
    assert hints[1] == "save it as .docx"
    assert ".txt" in hints[2]
    assert "looked for" in hints[3]


def test_a_path_that_the_system_refuses_is_named_with_its_reason(tmp_path: Path) -> None:
    paths = [tmp_path / ("x" * 300 + ".txt"), tmp_path / "missing.txt"]
    with pytest.raises(DataError, match="2 inputs cannot be read") as caught:
        find_inputs(paths)
    refused, missing = caught.value.problems
    assert refused.where.endswith("xxx.txt")
    assert refused.message == "cannot be read: File name too long"
    assert missing.message == "does not exist"


def test_a_compressed_file_is_opened_as_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"hello"))
    (file,) = find_inputs([tmp_path / "a.txt.gz"]).files
    with file.open() as opened:
        assert opened.read() == b"hello"


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.docx", "x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="python-docx") as caught:
        find_inputs([path])
    assert caught.value.hint == "pip install 'llamafarm[documents]'"
    assert find_inputs([write(tmp_path / "b.txt", "x")]).files


def test_an_output_that_is_an_input_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "x")
    files = find_inputs([tmp_path]).files
    for output in (path, tmp_path / "." / "a.jsonl"):
        request = PrepareRequest((tmp_path,), output, overwrite=True)
        with pytest.raises(OutputError, match="one of the inputs"):
            check_output(request, files)


def test_an_output_that_exists_needs_overwrite(tmp_path: Path) -> None:
    output = write(tmp_path / "out.jsonl", "old")
    with pytest.raises(OutputError, match="exists already") as caught:
        check_output(PrepareRequest((), output), ())
    assert "--overwrite" in caught.value.hint
    check_output(PrepareRequest((), output, overwrite=True), ())


def test_an_output_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        check_output(PrepareRequest((), tmp_path, overwrite=True), ())
