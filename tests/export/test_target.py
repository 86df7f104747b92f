"""The directory that is made: whole or not at all, and over nothing of anybody else's."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llamafarm.errors import LlamafarmError, OutputError, RunError
from llamafarm.export.target import check_target, make_room, staged_target

MADE = (
    "fever-Q8_0.gguf",
    "Modelfile",
    "README.md",
    "parity.json",
    "llamafarm.json",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
FOREIGN = (
    "thesis.txt",
    "adapter_config.json",
    "adapter_model.safetensors",
    "manifest.json",
    "run.json",
    "model.gguf.bak",
    "notes",
    ".git",
    "pytorch_model.bin",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "runs" / "one" / "final_model"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def filled(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text(name)
    return directory


def refusal(check: Callable[[], None], kind: type[LlamafarmError] = OutputError) -> LlamafarmError:
    with pytest.raises(kind) as caught:
        check()
    assert caught.value.hint
    return caught.value


def test_a_target_that_is_not_there_or_empty_is_free(target: Path, source: Path) -> None:
    check_target(target, source, overwrite=False)
    target.mkdir()
    check_target(target, source, overwrite=False)


def test_a_target_that_exists_is_refused_without_overwrite(target: Path, source: Path) -> None:
    filled(target, *MADE)
    fault = refusal(lambda: check_target(target, source, overwrite=False))
    assert "exists (it holds 13 files)" in fault.summary
    assert "--overwrite" in fault.hint


def test_what_convert_made_may_be_replaced(target: Path, source: Path) -> None:
    filled(target, *MADE)
    check_target(target, source, overwrite=True)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_convert_did_not_make_is_never_replaced(
    name: str, overwrite: bool, target: Path, source: Path
) -> None:
    filled(target, *MADE, name)
    fault = refusal(lambda: check_target(target, source, overwrite=overwrite))
    assert f"holds what convert did not write: {name}" in fault.summary


def test_a_directory_inside_the_target_is_foreign_too(target: Path, source: Path) -> None:
    filled(target / "checkpoints", "x")
    refusal(lambda: check_target(target, source, overwrite=True))


def test_the_final_model_of_another_run_is_never_replaced(tmp_path: Path, source: Path) -> None:
    other = filled(tmp_path / "runs" / "two" / "final_model", "config.json", "model.safetensors")
    (other.parent / "run.json").write_text("{}")
    fault = refusal(lambda: check_target(other, source, overwrite=True))
    assert "did not write: config.json, model.safetensors" in fault.summary


@pytest.mark.parametrize("place", ["", "inside", "inside/deep", "..", "../.."])
def test_source_and_target_never_lie_in_one_another(place: str, source: Path) -> None:
    target = source / place
    fault = refusal(lambda: check_target(target, source, overwrite=True))
    assert str(target) in fault.summary
    assert str(source) in fault.summary


def test_a_link_to_the_source_is_seen_through(tmp_path: Path, source: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    refusal(lambda: check_target(tmp_path / "link", source, overwrite=True))


def test_a_target_beside_the_source_is_free(source: Path) -> None:
    check_target(source.parent / "ollama", source, overwrite=False)


@pytest.mark.parametrize("place", [".", ".."])
def test_the_base_of_an_adapter_is_never_replaced(place: str, tmp_path: Path, source: Path) -> None:
    base = filled(tmp_path / "models" / "base", "config.json", "model.safetensors")
    fault = refusal(lambda: check_target(base / place, source, base=base, overwrite=True))
    assert str(base) in fault.summary
    check_target(base / "out", source, base=base, overwrite=False)


def test_a_file_or_a_link_is_no_target(target: Path, source: Path, tmp_path: Path) -> None:
    target.write_text("x")
    refusal(lambda: check_target(target, source, overwrite=True))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refusal(lambda: check_target(tmp_path / "link", source, overwrite=True))


def test_a_name_that_no_file_system_takes_is_refused(tmp_path: Path, source: Path) -> None:
    fault = refusal(lambda: check_target(tmp_path / ("x" * 300), source, overwrite=False))
    assert "cannot be written" in fault.summary


def test_a_disk_that_is_too_small_is_known_before(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(place: Path) -> object:
        asked.append(place)
        return shutil._ntuple_diskusage(10, 5, 2**30)  # type: ignore[attr-defined]  # its type

    monkeypatch.setattr(shutil, "disk_usage", usage)
    make_room(target / "deep" / "deeper", 2**30)
    assert asked == [target.parent]
    too_much = 3 * 2**30 // 2
    fault = refusal(lambda: make_room(target, too_much, smaller="make it smaller"), RunError)
    assert "needs 1.50 GiB, and 1.00 GiB are free there" in fault.summary
    assert fault.hint == "free some space, name a directory on another disk, or make it smaller"
    assert "smaller" not in refusal(lambda: make_room(target, too_much), RunError).hint


def test_a_target_appears_whole_with_the_directories_above_it(target: Path) -> None:
    deep = target / "a" / "b"
    with staged_target(deep) as stage:
        filled(stage, "x")
        assert not deep.exists()
    assert [file.name for file in deep.iterdir()] == ["x"]
    assert list(deep.parent.iterdir()) == [deep]


def test_a_target_that_existed_gives_way_as_a_whole(target: Path) -> None:
    filled(target, "old", "Modelfile")
    with staged_target(target) as stage:
        filled(stage, "Modelfile")
    assert [file.name for file in target.iterdir()] == ["Modelfile"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_everything_as_it_was(kind: type[BaseException], target: Path) -> None:
    filled(target, "old")
    with pytest.raises(kind), staged_target(target) as stage:
        filled(stage, "new")
        raise kind
    assert [file.name for file in target.iterdir()] == ["old"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_failed_run_that_leaves_nothing(number: int, target: Path) -> None:
    def write() -> None:
        with staged_target(target) as stage:
            filled(stage, "half")
            raise OSError(number, os.strerror(number))

    fault = refusal(write, RunError)
    assert "the disk is full" in fault.summary
    assert not list(target.parent.iterdir())


def test_a_place_that_cannot_be_written_is_the_user_s_to_change(target: Path) -> None:
    target.parent.joinpath("file").write_text("x")

    def write() -> None:
        with staged_target(target.parent / "file" / "out"):
            pass

    assert "cannot be written: " in refusal(write).summary


def test_what_a_killed_conversion_left_goes_with_the_next(target: Path) -> None:
    beyond_all_processes = 1 << 22
    dead = filled(target.parent / f".tmp-out-{beyond_all_processes + 1}", "half")
    alive = filled(target.parent / f".tmp-out-{os.getppid()}", "half")
    other = filled(target.parent / f".tmp-another-out-{beyond_all_processes + 1}", "half")
    make_room(target, 1)
    assert not dead.exists()
    assert alive.exists()
    assert other.exists()
