"""What is exported, found from what a person types."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from llamafarm.errors import ModelError
from llamafarm.export.source import ExportSource, find_source, open_model
from llamafarm.export.weights import StoredWeights
from llamafarm.models.record import RECORD_FILE, ModelRecord
from tests.export.architectures_for_tests import tiny_model
from tests.export.exported import adapter_on
from tests.models.gguf_files import write_llama_gguf

TEMPLATE = "{{ 'as it was trained' }}"


@pytest.fixture(scope="module")
def made(smollm2_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base/`, `adapter/`, and `run/` with a final model and a checkpoint; do not write into it."""
    directory = tmp_path_factory.mktemp("source")
    base = tiny_model(
        "LlamaForCausalLM",
        directory / "base",
        tokenizer=smollm2_tokenizer_dir,
        hidden_size=16,
        head_dim=8,
    )
    adapter = adapter_on(base, directory / "adapter")
    record = ModelRecord(base_requested="base", system_prompt="Be brief.", stop_words=("X",))
    for name in ("final_model", "checkpoints/checkpoint-3"):
        shutil.copytree(adapter, directory / "run" / name)
        (directory / "run" / name / "chat_template.jinja").write_text(TEMPLATE)
        (directory / "run" / name / RECORD_FILE).write_bytes(record.to_bytes())
    for name in ("run.json", "strategy.yaml"):
        (directory / "run" / name).write_text("{}")
    return directory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LLAMAFARM_CACHE", str(tmp_path / "cache"))
    yield


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(made / "adapter", tmp_path / "adapter")


def found(name: str, directory: Path) -> ExportSource:
    return find_source(name, working_directory=directory)


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("typed", "directory"),
    [
        ("run", "run/final_model"),
        ("run/final_model", "run/final_model"),
        ("run/checkpoints/checkpoint-3", "run/checkpoints/checkpoint-3"),
    ],
)
def test_a_run_is_known_by_any_of_its_directories(typed: str, directory: str, made: Path) -> None:
    source = found(typed, made)
    assert source.requested == typed
    assert source.directory == made / directory
    assert source.base == made / "base"
    assert source.is_adapter
    assert source.run == made / "run"
    assert source.record.system_prompt == "Be brief."
    assert source.chat_template == TEMPLATE


def test_an_absolute_path_is_taken_from_anywhere(made: Path, tmp_path: Path) -> None:
    assert found(str(made / "run"), tmp_path).directory == made / "run" / "final_model"


def test_an_adapter_of_another_tool_has_no_run_and_no_record(made: Path) -> None:
    source = found("adapter", made)
    assert source.run is None
    assert source.record == ModelRecord()
    assert source.tokenizer == made / "adapter"


def test_an_adapter_without_a_tokenizer_has_that_of_its_base(adapter: Path, made: Path) -> None:
    for file in (*adapter.glob("tokenizer*"), adapter / "chat_template.jinja"):
        file.unlink()
    source = found(str(adapter), made)
    assert source.tokenizer == made / "base"
    assert source.chat_template == (made / "base" / "chat_template.jinja").read_text()


def test_a_full_model_is_its_own_base(made: Path) -> None:
    source = found("base", made)
    assert not source.is_adapter
    assert source.directory == source.base == source.tokenizer == made / "base"
    assert open_model(source).weights.shapes == StoredWeights.of_model(made / "base").shapes


def test_a_gguf_file_is_a_model_too(tmp_path: Path) -> None:
    write_llama_gguf(tmp_path / "m.gguf", pre="smollm")
    source = found("m.gguf", tmp_path)
    assert not source.is_adapter
    assert (source.base / "model.safetensors").is_file()
    assert source.chat_template


def test_a_base_model_s_name_is_a_model_too(
    packaged_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMAFARM_CACHE")
    source = found("smollm2-135m-instruct", tmp_path)
    assert source.base.resolve() == packaged_model_dir
    assert not source.is_adapter


def test_the_merged_model_is_base_and_adapter(made: Path) -> None:
    model = open_model(found("run", made))
    base = StoredWeights.of_model(made / "base")
    assert model.weights.shapes == base.shapes
    assert model.config["architectures"] == ["LlamaForCausalLM"]
    changed = {
        name.rsplit(".", 2)[-2]
        for name, shape in base.shapes.items()
        if not np.array_equal(
            model.weights.read_rows(name, 0, shape[0]), base.read_rows(name, 0, shape[0])
        )
    }
    assert changed == {"q_proj", "v_proj", "o_proj"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{ x }}", "{{ x }}"),
        ([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}], "D"),
        ([{"name": "tool_use", "template": "T"}], None),
        (None, None),
    ],
)
def test_a_template_may_stand_in_the_tokenizer_s_configuration(
    value: object, expected: str | None, adapter: Path, made: Path
) -> None:
    (adapter / "chat_template.jinja").unlink()
    change(adapter / "tokenizer_config.json", chat_template=value)
    assert found(str(adapter), made).chat_template == expected


def test_a_template_that_is_no_text_is_refused(adapter: Path, made: Path) -> None:
    (adapter / "chat_template.jinja").unlink()
    change(adapter / "tokenizer_config.json", chat_template={"a": 1})
    with pytest.raises(ModelError, match="chat template is no text"):
        _ = found(str(adapter), made).chat_template


def test_a_template_that_is_not_utf_8_is_refused(adapter: Path, made: Path) -> None:
    (adapter / "chat_template.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(ModelError, match="not UTF-8"):
        _ = found(str(adapter), made).chat_template


def test_a_base_that_is_gone_is_named(adapter: Path, made: Path) -> None:
    change(adapter / "adapter_config.json", base_model_name_or_path="./gone")
    with pytest.raises(ModelError, match=r"the base model \./gone does not exist"):
        found(str(adapter), made)


def test_a_base_with_other_weights_is_refused(adapter: Path, made: Path) -> None:
    record = ModelRecord(base_fingerprint="0" * 64)
    (adapter / RECORD_FILE).write_bytes(record.to_bytes())
    with pytest.raises(ModelError, match="was trained on other weights"):
        found(str(adapter), made)


def test_a_model_that_is_not_complete_says_what_is_missing(made: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    shutil.copy(made / "base" / "config.json", tmp_path / "half")
    with pytest.raises(ModelError) as caught:
        found("half", tmp_path)
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        "the weights are missing (model.safetensors)",
        "the tokenizer is missing (tokenizer.json)",
    ]
