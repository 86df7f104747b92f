from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError
from llamafarm.models import resolve
from llamafarm.models.hub import HubUnknownError, HubUnreachableError
from llamafarm.models.resolve import resolve_model
from llamafarm.models.source import ModelSource
from llamafarm.strategy.model import BaseModelSpec
from tests.models.gguf_files import write_llama_gguf

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGED_NAME = "smollm2-135m-instruct"

pytestmark = pytest.mark.usefixtures("cache_dir")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub that cannot be reached."""

    def unreachable(name: str, **options: Any) -> Path:
        raise HubUnreachableError(f"{name} is not on this machine", hint="hf download it")

    monkeypatch.setattr(resolve, "hub_model_directory", unreachable)


@pytest.fixture
def packaged_stand_in(small_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packaged model, without the time it takes to make it."""
    monkeypatch.setattr(resolve, "packaged_model_directory", lambda: small_model_dir)
    return small_model_dir


def _resolve(name: str | None, directory: Path, **options: Any) -> ModelSource:
    spec = BaseModelSpec(id=name, **options.pop("spec", {}))
    return resolve_model(spec, working_directory=directory, **options)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", [None, PACKAGED_NAME])
def test_the_packaged_copy_is_the_default_and_has_a_name(
    packaged_stand_in: Path, tmp_path: Path, name: str | None
) -> None:
    source = _resolve(name, tmp_path)
    assert (source.kind, source.name, source.notice) == ("packaged", PACKAGED_NAME, "")
    assert source.directory == packaged_stand_in
    weights = (packaged_stand_in / "model.safetensors").read_bytes()
    assert source.fingerprint == hashlib.sha256(weights).hexdigest()


def test_the_packaged_name_wins_over_a_directory_of_that_name(
    packaged_stand_in: Path, tmp_path: Path
) -> None:
    (tmp_path / PACKAGED_NAME).mkdir()
    assert _resolve(PACKAGED_NAME, tmp_path).kind == "packaged"


@pytest.mark.usefixtures("no_hub")
def test_the_packaged_copy_stands_in_for_the_hubs_weights_with_a_notice(
    packaged_stand_in: Path, tmp_path: Path
) -> None:
    source = _resolve(HUB_NAME, tmp_path)
    assert (source.requested, source.name, source.kind) == (HUB_NAME, PACKAGED_NAME, "packaged")
    assert "stands in" in source.notice
    assert "does not fit the Hub's" in source.notice
    assert "\n" not in source.notice


@pytest.mark.usefixtures("no_hub", "packaged_stand_in")
def test_nothing_stands_in_for_a_certain_revision(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not on this machine"):
        _resolve(HUB_NAME, tmp_path, spec={"revision": "v1"})


@pytest.mark.usefixtures("packaged_stand_in")
def test_a_hub_that_answers_that_a_model_does_not_exist_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str, **options: Any) -> Path:
        raise HubUnknownError(f"there is no model {name}")

    monkeypatch.setattr(resolve, "hub_model_directory", unknown)
    with pytest.raises(ModelError, match="there is no model"):
        _resolve(HUB_NAME, tmp_path)


def test_what_the_user_said_reaches_the_hub(
    small_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def answer(name: str, **options: Any) -> Path:
        asked.update(options, name=name)
        return small_model_dir

    monkeypatch.setattr(resolve, "hub_model_directory", answer)
    source = _resolve(
        "a/b", tmp_path, spec={"revision": "v1", "cache_dir": "~/c"}, allow_download=False
    )
    assert asked == {
        "name": "a/b",
        "revision": "v1",
        "cache_dir": Path("~/c").expanduser(),
        "allow_download": False,
    }
    assert (source.kind, source.name) == ("hub", "a/b")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", ["./small", "small", "../{parent}/small", "{absolute}"])
def test_a_directory_is_found_however_it_is_written(small_model_dir: Path, name: str) -> None:
    start = small_model_dir.parent
    written = name.format(parent=start.name, absolute=small_model_dir)
    source = _resolve(written, start)
    assert (source.kind, source.requested) == ("local", written)
    assert source.directory == small_model_dir.resolve()
    assert source.name == str(small_model_dir.resolve())


@pytest.mark.usefixtures("no_hub")
def test_a_path_in_a_strategy_file_starts_beside_that_file(
    small_model_dir: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    strategy_file = small_model_dir.parent / "strategies.yaml"
    source = _resolve("./small", other, strategy_file=strategy_file)
    assert source.directory == small_model_dir.resolve()
    shutil.copytree(small_model_dir, other / "second")
    assert _resolve("./second", other, strategy_file=strategy_file).kind == "local"


def test_a_gguf_file_is_a_base_model(tmp_path: Path) -> None:
    write_llama_gguf(tmp_path / "m.gguf", pre="smollm")
    source = _resolve("m.gguf", tmp_path)
    assert (source.kind, source.name) == ("gguf", str((tmp_path / "m.gguf").resolve()))
    assert (source.directory / "model.safetensors").is_file()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file, but not a"):
        _resolve("./model.zip", tmp_path)


def test_an_incomplete_directory_says_what_is_missing(small_model_dir: Path) -> None:
    (small_model_dir / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        _resolve("./small", small_model_dir.parent)


def test_an_adapter_given_as_base_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    settings = {"base_model_name_or_path": PACKAGED_NAME}
    (tmp_path / "run/adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError) as fault:
        _resolve("run", tmp_path)
    assert f"base_model: {PACKAGED_NAME}" in fault.value.hint


def test_a_path_that_does_not_exist_hints_at_its_neighbour(small_model_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"\./smal does not exist") as fault:
        _resolve("./smal", small_model_dir.parent)
    assert fault.value.hint == f"did you mean `{small_model_dir}`?"
    assert fault.value.exit_code == 2


def test_all_places_that_were_looked_at_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as fault:
        _resolve("./zzz", tmp_path, strategy_file=tmp_path / "configs/s.yaml")
    assert f"{tmp_path}/configs/zzz and {tmp_path}/zzz" in fault.value.summary


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct", "smollm2-135m", "SmolLM2-135M-instruct"])
def test_almost_the_packaged_name_is_hinted_at(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as fault:
        _resolve(name, tmp_path)
    assert f"did you mean `{PACKAGED_NAME}`?" in fault.value.hint
    assert "hf download it" in fault.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_model_far_from_every_name_gets_no_guess(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as fault:
        _resolve("meta-llama/Llama-3.2-3B-Instruct", tmp_path)
    assert fault.value.hint == "hf download it"
