"""Merged models as the Hugging Face libraries read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llamafarm.errors import ModelError
from llamafarm.export import safetensors_writer
from llamafarm.export.convert import write_safetensors
from llamafarm.export.safetensors_writer import (
    merged_config,
    model_nbytes,
    stored_type,
    write_weights,
)
from llamafarm.export.source import find_source, open_model
from llamafarm.export.weights import StoredWeights
from tests.export.architectures_for_tests import tiny_model
from tests.export.exported import adapter_on

TENSORS = {
    "b.weight": torch.arange(24, dtype=torch.float32).reshape(6, 4),
    "a.half": torch.linspace(-3, 3, 10).half(),
    "c.brain": torch.linspace(-3, 3, 12).bfloat16().reshape(3, 2, 2),
    "d.double": torch.linspace(-3, 3, 4, dtype=torch.float64),
    "e.scalar": torch.tensor(2.5),
}


def stored(directory: Path, tensors: dict[str, torch.Tensor]) -> StoredWeights:
    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    return StoredWeights.of_model(directory)


@pytest.fixture
def source(tmp_path: Path) -> StoredWeights:
    return stored(tmp_path / "source", TENSORS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def test_every_tensor_comes_back_as_it_was_stored(source: StoredWeights, out: Path) -> None:
    write_weights(out, source)
    assert [file.name for file in out.iterdir()] == ["model.safetensors"]
    found = load_file(out / "model.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        expected = tensor.float() if tensor.dtype == torch.float64 else tensor
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        assert torch.equal(found[name], expected)


def test_transformers_takes_the_file_for_one_of_torch(source: StoredWeights, out: Path) -> None:
    write_weights(out, source)
    with safe_open(out / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_progress_ends_at_the_size_that_was_announced(source: StoredWeights, out: Path) -> None:
    seen: list[int] = []
    write_weights(out, source, on_bytes=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == model_nbytes(source) == 24 * 4 + 10 * 2 + 12 * 2 + 4 * 4 + 4


def test_a_large_model_is_written_in_shards_with_an_index(
    source: StoredWeights, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_writer, "_SHARD_BYTES", 120)
    write_weights(out, source)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert sorted(file.name for file in out.iterdir()) == [*names, "model.safetensors.index.json"]
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": model_nbytes(source)}
    assert index["weight_map"] == {
        tensor: name for name in names for tensor in load_file(out / name)
    }
    again = StoredWeights.of_model(out)
    assert again.shapes == source.shapes
    rows = again.read_rows("b.weight", 0, 6)
    assert np.array_equal(rows, TENSORS["b.weight"].numpy())


def test_a_tensor_larger_than_a_shard_has_one_of_its_own(
    source: StoredWeights, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_writer, "_SHARD_BYTES", 1)
    write_weights(out, source)
    assert len(list(out.glob("model-*.safetensors"))) == len(TENSORS)
    assert StoredWeights.of_model(out).shapes == source.shapes


def test_a_tensor_that_is_no_weight_is_refused_by_name(tmp_path: Path) -> None:
    weights = stored(tmp_path / "x", {"position_ids": torch.arange(4), "a": torch.ones(2)})
    with pytest.raises(ModelError, match="position_ids is stored as I64"):
        model_nbytes(weights)


def test_float64_becomes_float32_and_all_else_stays() -> None:
    kinds = ("F64", "F32", "F16", "BF16")
    assert [stored_type(kind) for kind in kinds] == ["F32", "F32", "F16", "BF16"]


def test_the_configuration_follows_what_training_changed() -> None:
    config: dict[str, Any] = {"vocab_size": 40, "tie_word_embeddings": True, "hidden_size": 8}
    shapes = {"model.embed_tokens.weight": (42, 8), "lm_head.weight": (42, 8)}
    found = merged_config(config, shapes, untied=True)
    assert found == {"vocab_size": 42, "tie_word_embeddings": False, "hidden_size": 8}
    assert config["vocab_size"] == 40


def test_the_configuration_of_a_language_model_inside_another_follows_too() -> None:
    config: dict[str, Any] = {"text_config": {"vocab_size": 40}, "vision_config": {"x": 1}}
    shapes = {"model.language_model.embed_tokens.weight": (42, 8)}
    found = merged_config(config, shapes, untied=True)
    assert found["text_config"] == {"vocab_size": 42, "tie_word_embeddings": False}
    assert found["tie_word_embeddings"] is False
    assert found["vision_config"] == {"x": 1}
    assert config["text_config"] == {"vocab_size": 40}


def test_a_configuration_that_nothing_changed_is_the_base_s() -> None:
    config: dict[str, Any] = {"vocab_size": 40, "tie_word_embeddings": True}
    assert merged_config(config, {"model.embed_tokens.weight": (40, 8)}, untied=False) == config


def test_the_merged_directory_answers_as_base_and_adapter(
    smollm2_tokenizer_dir: Path, tmp_path: Path, out: Path
) -> None:
    from llamafarm.models.load import load_finished_model

    base = tiny_model(
        "LlamaForCausalLM",
        tmp_path / "base",
        tokenizer=smollm2_tokenizer_dir,
        hidden_size=16,
        head_dim=8,
    )
    adapter = adapter_on(base, tmp_path / "adapter")
    source = find_source(str(adapter), working_directory=tmp_path)
    write_safetensors(source, open_model(source), out, on_work=lambda *_: None)
    trained, _ = load_finished_model(adapter)
    merged, tokenizer = load_finished_model(out)
    bare = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([tokenizer("What is it?").input_ids])
    with torch.no_grad():
        expected, found, before = (model(ids).logits for model in (trained, merged, bare))
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, before, atol=1e-1)
    template = (adapter / "chat_template.jinja").read_bytes()
    assert (out / "chat_template.jinja").read_bytes() == template
