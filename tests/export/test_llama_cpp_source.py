from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError
from llamafarm.export import llama_cpp_source
from llamafarm.export.llama_cpp_source import (
    REQUIREMENT,
    download_command,
    extract_converter,
    install_sources,
    installed_sources,
)

ROOT = "llama_cpp_python-0.3.36/vendor/llama.cpp"
WANTED = {
    f"{ROOT}/convert_hf_to_gguf.py": b"print('converter')",
    f"{ROOT}/conversion/__init__.py": b"TEXT_MODEL_MAP = {}",
    f"{ROOT}/gguf-py/gguf/__init__.py": b"",
}
REST = {
    "llama_cpp_python-0.3.36/setup.py": b"raise SystemExit",
    f"{ROOT}/src/llama.cpp": b"int main;",
    f"{ROOT}/convert_hf_to_gguf_update.py": b"",
    f"{ROOT}/conversion-notes.md": b"",
    "elsewhere/vendor/llama.cpp/conversion/other.py": b"",
}


def make_archive(
    path: Path, files: dict[str, bytes], *others: tuple[tarfile.TarInfo, bytes]
) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member, content in others:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member_of_type(name: str, kind: bytes, linked_to: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = linked_to
    return member, b""


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account in which nothing was installed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path / "data"


def fake_pip(monkeypatch: pytest.MonkeyPatch, archive: Path | None) -> list[str]:
    """pip that gives this archive, or fails; the requirements of each call."""
    asked: list[str] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "download" not in command:
            return subprocess.CompletedProcess(command, 0, "", "")
        asked.append(Path(command[command.index("--requirement") + 1]).read_text())
        if archive is None:
            return subprocess.CompletedProcess(command, 1, "", "no network\nERROR: not found\n")
        Path(command[command.index("--dest") + 1], archive.name).write_bytes(archive.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def files_under(directory: Path) -> set[str]:
    return {str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file()}


@pytest.mark.usefixtures("data_home")
def test_only_the_converter_is_kept_of_the_package_and_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_archive(tmp_path / "package.tar.gz", {**REST, **WANTED})
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(llama_cpp_source, "_SHA256", digest)
    asked = fake_pip(monkeypatch, archive)
    directory = install_sources()
    assert directory == installed_sources()
    assert files_under(directory) == {name.removeprefix(f"{ROOT}/") for name in WANTED}
    assert (directory / "convert_hf_to_gguf.py").read_bytes() == b"print('converter')"
    install_sources()
    assert asked == [f"{REQUIREMENT} --hash=sha256:{digest}\n"]


def test_another_archive_of_the_same_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_home: Path
) -> None:
    fake_pip(monkeypatch, make_archive(tmp_path / "package.tar.gz", WANTED))
    with pytest.raises(ModelError, match="is not the archive that"):
        install_sources()
    assert files_under(data_home) == {"llamafarm/packages/.lock"}


def test_a_failed_download_says_what_pip_said_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, data_home: Path
) -> None:
    fake_pip(monkeypatch, None)
    with pytest.raises(ModelError, match="ERROR: not found") as fault:
        install_sources()
    assert "LLAMA_CPP_PATH" in fault.value.hint
    assert files_under(data_home) == {"llamafarm/packages/.lock"}


@pytest.mark.parametrize(
    "member",
    [
        member_of_type(f"{ROOT}/conversion/link.py", tarfile.SYMTYPE, "/etc/hostname"),
        member_of_type(f"{ROOT}/gguf-py/link.py", tarfile.LNKTYPE, f"{ROOT}/conversion/a.py"),
        member_of_type(f"{ROOT}/conversion/pipe", tarfile.FIFOTYPE),
        (tarfile.TarInfo(f"{ROOT}/conversion/../../outside.py"), b"import os"),
    ],
    ids=["symbolic link", "hard link", "pipe", "path that leaves"],
)
def test_what_is_no_plain_file_inside_is_refused(
    tmp_path: Path, member: tuple[tarfile.TarInfo, bytes]
) -> None:
    archive = make_archive(tmp_path / "package.tar.gz", WANTED, member)
    with pytest.raises(ModelError, match="is no plain file in it"):
        extract_converter(archive, tmp_path / "a" / "b")
    assert not (tmp_path / "outside.py").exists()
    assert not (tmp_path / "a" / "outside.py").exists()


def test_an_archive_that_unpacks_to_far_more_than_a_converter_is_refused(tmp_path: Path) -> None:
    large = {f"{ROOT}/gguf-py/{n}.py": bytes(9 * 2**20) for n in range(2)}
    archive = make_archive(tmp_path / "package.tar.gz", {**WANTED, **large})
    with pytest.raises(ModelError, match="far more than a converter"):
        extract_converter(archive, tmp_path / "target")
    assert not (tmp_path / "target" / "gguf-py" / "1.py").exists()


def test_an_archive_without_the_script_is_refused(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "package.tar.gz", REST)
    with pytest.raises(ModelError, match=r"it holds no .*convert_hf_to_gguf\.py"):
        extract_converter(archive, tmp_path / "target")


@pytest.mark.parametrize(
    ("pip", "uv", "start"),
    [
        (object(), "/somewhere/uv", [sys.executable, "-m", "pip", "download"]),
        (
            None,
            "/somewhere/uv",
            ["/somewhere/uv", "tool", "run", "--python", sys.executable, "pip", "download"],
        ),
        (None, None, ["/base/python", "-m", "pip", "download"]),
    ],
    ids=["pip", "uv", "pip of the base Python"],
)
def test_pip_is_taken_from_wherever_it_is(
    monkeypatch: pytest.MonkeyPatch, pip: object, uv: str | None, start: list[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pip)
    monkeypatch.setattr(llama_cpp_source.shutil, "which", lambda name: uv)
    monkeypatch.setattr(llama_cpp_source, "_base_python_with_pip", lambda: "/base/python")
    command = download_command(Path("/r.txt"), Path("/target"))
    assert command[: len(start)] == start
    assert {"--no-deps", "--require-hashes", "--no-binary", "/r.txt", "/target"} < set(command)


def test_without_pip_and_uv_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(llama_cpp_source.shutil, "which", lambda name: None)
    monkeypatch.setattr(llama_cpp_source, "_base_python_with_pip", lambda: None)
    with pytest.raises(ModelError, match="neither pip nor uv"):
        download_command(Path("/r.txt"), Path("/target"))
