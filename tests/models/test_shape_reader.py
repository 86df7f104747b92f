from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError
from llamafarm.models.shape import LinearLayer
from llamafarm.models.shape_reader import read_shape
from tests.models.test_config import change_config


def _save(directory: Path, model_type: str, **settings: Any) -> Path:
    from transformers import AutoConfig

    AutoConfig.for_model(model_type, **settings).save_pretrained(directory)
    return directory


def test_a_llama_is_described_whole(small_model_dir: Path) -> None:
    shape = read_shape(small_model_dir)
    assert (shape.architecture, shape.model_type) == ("LlamaForCausalLM", "llama")
    assert (shape.num_layers, shape.hidden_size, shape.intermediate_size) == (2, 32, 64)
    assert (shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim) == (4, 2, 8)
    assert (shape.vocab_size, shape.max_position_embeddings) == (12, 64)
    assert not shape.tied_embeddings
    assert len(shape.linear_layers) == 2 * 7
    assert shape.linear_layers[1] == LinearLayer("model.layers.0.self_attn.k_proj", 16, 32)


def test_the_number_of_parameters_is_that_of_the_real_model(small_model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(small_model_dir)
    assert read_shape(small_model_dir).num_parameters == sum(p.numel() for p in model.parameters())


def test_tied_embeddings_count_once(tiny_model_dir: Path) -> None:
    shape = read_shape(tiny_model_dir)
    assert shape.tied_embeddings
    assert shape.num_parameters < 2 * 49152 * 16


def test_no_weights_are_read(small_model_dir: Path) -> None:
    (small_model_dir / "model.safetensors").unlink()
    assert read_shape(small_model_dir).num_layers == 2


def test_gpt2_layers_have_torchs_order_of_dimensions(tmp_path: Path) -> None:
    shape = read_shape(_save(tmp_path, "gpt2", n_embd=16, n_layer=1, n_head=2, vocab_size=20))
    sizes = {layer.name.removeprefix("transformer.h.0."): layer for layer in shape.linear_layers}
    assert sizes["attn.c_attn"].d_out == 48
    assert sizes["attn.c_attn"].d_in == 16
    assert sizes["mlp.c_proj"].d_in == 64
    assert "lm_head" not in {layer.name for layer in shape.linear_layers}
    assert shape.intermediate_size == 64
    assert shape.max_position_embeddings == 1024


def test_a_vision_tower_is_left_out(tmp_path: Path) -> None:
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 300,
    }
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    shape = read_shape(_save(tmp_path, "gemma3", text_config=text, vision_config=vision))
    assert shape.hidden_size == 16
    assert shape.linear_layers
    assert all("language_model" in layer.name for layer in shape.linear_layers)


@pytest.mark.parametrize("model_type", ["llama4_text", "modernbert-decoder"])
def test_a_head_inside_the_decoder_is_left_out_too(tmp_path: Path, model_type: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    vocabulary = {"vocab_size": 301, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = read_shape(_save(tmp_path, model_type, **sizes, **vocabulary))
    assert len(shape.linear_layers) >= 4
    assert 301 not in {layer.d_out for layer in shape.linear_layers}


def test_a_large_model_costs_no_memory(tmp_path: Path) -> None:
    shape = read_shape(
        _save(
            tmp_path,
            "llama",
            hidden_size=8192,
            num_hidden_layers=80,
            num_attention_heads=64,
            num_key_value_heads=8,
            intermediate_size=28672,
            vocab_size=128256,
        )
    )
    assert 70e9 < shape.num_parameters < 71e9


def test_a_model_without_a_stated_context_gets_the_common_one(tmp_path: Path) -> None:
    shape = read_shape(_save(tmp_path, "bloom", hidden_size=16, n_layer=1, n_head=2, vocab_size=20))
    assert shape.max_position_embeddings == 2048


def test_a_model_without_attention_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, "mamba", hidden_size=16, num_hidden_layers=1, vocab_size=20)
    with pytest.raises(ModelError, match="has no attention"):
        read_shape(tmp_path)


def test_a_configuration_that_contradicts_itself_is_named(small_model_dir: Path) -> None:
    change_config(small_model_dir, hidden_act="no_such_function")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_shape(small_model_dir)
