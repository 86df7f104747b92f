"""Merged weights against PEFT's own merge, bit for bit where rounding allows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llamafarm.errors import ModelError
from llamafarm.export.merge import MergedWeights
from llamafarm.export.weights import StoredWeights, row_ranges

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ["q_proj", "down_proj"], "lora_alpha": 7},
    "all linear": {"target_modules": "all-linear"},
    "rslora": {"target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "dora": {"target_modules": ["q_proj", "gate_proj"], "use_dora": True},
    "modules_to_save": {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    "bias": {"target_modules": ["q_proj"], "bias": "all"},
    "lora_bias": {"target_modules": ["q_proj"], "lora_bias": True},
    "patterns": {
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 3},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 5, "v_proj": 9},
    },
}


def small_llama(directory: Path, *, tied: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        tie_word_embeddings=tied,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory)
    return model


def small_adapter(base: Any, directory: Path, **settings: Any) -> None:
    """Every trained tensor gets numbers that differ from their start."""
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(directory)


def merged(base: Path, adapter: Path) -> MergedWeights:
    config = json.loads((base / "config.json").read_text())
    return MergedWeights(StoredWeights.of_model(base), adapter, config)


def whole(weights: Any, name: str) -> Any:
    return weights.read_rows(name, 0, weights.shapes[name][0])


@pytest.mark.parametrize("kind", ADAPTERS)
def test_merged_rows_equal_the_merge_of_peft(kind: str, tmp_path: Path) -> None:
    small_adapter(small_llama(tmp_path / "base"), tmp_path / "adapter", **ADAPTERS[kind])
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    expected = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    ours = merged(tmp_path / "base", tmp_path / "adapter")
    state = expected.state_dict()
    assert ours.shapes.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_allclose(whole(ours, name), tensor.numpy(), rtol=2e-6, atol=2e-7)


def test_a_merge_into_bfloat16_is_one_rounding_away_from_the_exact_sum(tmp_path: Path) -> None:
    model = small_llama(tmp_path / "base", dtype=torch.bfloat16)
    small_adapter(model, tmp_path / "adapter", target_modules=["q_proj"])
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")
    layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    delta = (layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()) * 4
    exact = layer.base_layer.weight.double() + delta
    name = "model.layers.0.self_attn.q_proj.weight"
    ours = torch.from_numpy(whole(merged(tmp_path / "base", tmp_path / "adapter"), name))
    assert torch.equal(ours.to(torch.bfloat16), exact.to(torch.bfloat16))


def test_rows_read_in_parts_are_the_rows_read_at_once(tmp_path: Path) -> None:
    model = small_llama(tmp_path / "base")
    small_adapter(model, tmp_path / "adapter", target_modules="all-linear", use_dora=True)
    ours = merged(tmp_path / "base", tmp_path / "adapter")
    name = "model.layers.1.mlp.down_proj.weight"
    parts = [ours.read_rows(name, start, start + 4) for start in range(0, 16, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole(ours, name))


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(torch.arange(1, 12)[None]).logits


def reloaded(ours: MergedWeights, base: Path, directory: Path) -> Any:
    """What stock transformers makes of the merged tensors."""
    from safetensors.numpy import save_file

    directory.mkdir()
    save_file({n: whole(ours, n) for n in ours.shapes}, directory / "model.safetensors")
    config = json.loads((base / "config.json").read_text())
    if ours.untied:
        config["tie_word_embeddings"] = False
    vocabulary = next(s[0] for n, s in ours.shapes.items() if n.endswith("embed_tokens.weight"))
    (directory / "config.json").write_text(json.dumps(config | {"vocab_size": vocabulary}))
    return LlamaForCausalLM.from_pretrained(directory)


@pytest.mark.parametrize(
    ("settings", "unties"),
    [
        ({"target_modules": ["q_proj"]}, False),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, True),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, True),
        ({"target_modules": ["q_proj", "lm_head"]}, True),
        ({"target_modules": ["q_proj", "embed_tokens"]}, True),
    ],
)
def test_tied_embeddings_stay_what_the_trained_model_has(
    settings: dict[str, Any], unties: bool, tmp_path: Path
) -> None:
    small_adapter(small_llama(tmp_path / "base", tied=True), tmp_path / "adapter", **settings)
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    trained = PeftModel.from_pretrained(base, tmp_path / "adapter")
    ours = merged(tmp_path / "base", tmp_path / "adapter")
    assert ours.untied == unties
    again = reloaded(ours, tmp_path / "base", tmp_path / "merged")
    torch.testing.assert_close(logits(again), logits(trained), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_tokens_that_training_added_are_in_the_merged_model(tied: bool, tmp_path: Path) -> None:
    model = small_llama(tmp_path / "base", tied=tied)
    model.resize_token_embeddings(43)
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    )
    with torch.no_grad():
        adapted.base_model.model.model.embed_tokens.weight[40:] += 0.5
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    ours = merged(tmp_path / "base", tmp_path / "adapter")
    assert ours.shapes["model.embed_tokens.weight"] == (43, 16)
    again = reloaded(ours, tmp_path / "base", tmp_path / "merged")
    torch.testing.assert_close(logits(again), logits(adapted), rtol=1e-4, atol=1e-5)


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    model = small_llama(tmp_path / "base")
    small_adapter(model, tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    other = LlamaConfig(
        vocab_size=40, hidden_size=24, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(other).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError) as refused:
        merged(tmp_path / "other", tmp_path / "adapter")
    text = refused.value.render()
    assert "model.layers.1.self_attn.q_proj.weight" in text
    assert "the base has no such tensor" in text
    assert "16 x 16 in the adapter, 24 x 24 in the base" in text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("peft_type", "IA3", "IA3"),
        ("alora_invocation_tokens", [1, 2], "alora_invocation_tokens"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(
    key: str, value: Any, said: str, tmp_path: Path
) -> None:
    small_adapter(small_llama(tmp_path / "base"), tmp_path / "adapter", target_modules=["q_proj"])
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=said):
        merged(tmp_path / "base", tmp_path / "adapter")


def test_parts_cover_all_rows_and_keep_rows_together() -> None:
    ranges = list(row_ranges((1000, 4096), together=64))
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] == 1000
    assert all((stop - start) % 64 == 0 for start, stop in ranges[:-1])
