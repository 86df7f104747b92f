from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamafarm.errors import ModelError
from llamafarm.export.architectures import (
    ModelContents,
    is_supported,
    model_contents,
    supported_architectures,
)
from llamafarm.export.architectures.gemma import GEMMA2, GEMMA3, GEMMA3_WITH_VISION
from llamafarm.export.architectures.llama import LLAMA, MISTRAL, interleave_halves
from llamafarm.export.architectures.phi import PHI3
from llamafarm.export.architectures.qwen import QWEN2, QWEN3
from llamafarm.export.contents import Floats, TensorPlan
from llamafarm.export.weights import StoredWeights
from llamafarm.models.gguf_file import GgufFile, read_gguf
from llamafarm.models.packaged import find_packaged_gguf
from llamafarm.models.smollm2 import unpermute
from tests.export.architectures_for_tests import shapes_of, tiny_config

CONFIG_CLASSES = {
    "LlamaConfig": LLAMA,
    "MistralConfig": MISTRAL,
    "Qwen2Config": QWEN2,
    "Qwen3Config": QWEN3,
    "Gemma2Config": GEMMA2,
    "Gemma3TextConfig": GEMMA3,
    "Phi3Config": PHI3,
}
LLAMA3_ROPE = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
GEMMA3_4B = {
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "model_type": "gemma3_text",
    "num_hidden_layers": 34,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 896,
    "patch_size": 14,
}
LONGROPE = {"type": "longrope", "long_factor": [2.0] * 48, "short_factor": [1.0] * 48}
# What config.json of these models says, as far as it concerns the file, in the spelling of the Hub.
HUB: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05,
        "rope_scaling": LLAMA3_ROPE,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "vocab_size": 128256,
    },
    "Mistral-7B-v0.1": {
        "architectures": ["MistralForCausalLM"],
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    },
    "Mistral-Nemo": {
        "architectures": ["MistralForCausalLM"],
        "head_dim": 128,
        "hidden_size": 5120,
        "max_position_embeddings": 131072,
        "num_hidden_layers": 40,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "vocab_size": 131072,
    },
    "Qwen2.5-0.5B": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_window_layers": 21,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "Qwen3-0.6B": {
        "architectures": ["Qwen3ForCausalLM"],
        "head_dim": 128,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "max_window_layers": 28,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
    },
    "gemma-2-2b": {
        "architectures": ["Gemma2ForCausalLM"],
        "hidden_act": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
    },
    "gemma-2-27b": {
        "architectures": ["Gemma2ForCausalLM"],
        "head_dim": 128,
        "hidden_size": 4608,
        "intermediate_size": 36864,
        "num_attention_heads": 32,
        "num_hidden_layers": 46,
        "num_key_value_heads": 16,
        "query_pre_attn_scalar": 144,
    },
    "gemma-3-1b": {
        "architectures": ["Gemma3ForCausalLM"],
        "attn_logit_softcapping": None,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "max_position_embeddings": 32768,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "vocab_size": 262144,
    },
    "gemma-3-4b": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": GEMMA3_4B,
        "vision_config": VISION,
    },
    "Phi-3-mini-4k": {
        "architectures": ["Phi3ForCausalLM"],
        "num_key_value_heads": 32,
        "rope_scaling": None,
        "sliding_window": 2047,
    },
    "Phi-3.5-mini": {
        "architectures": ["Phi3ForCausalLM"],
        "max_position_embeddings": 131072,
        "rope_scaling": LONGROPE,
        "sliding_window": 262144,
    },
    "Phi-4-mini": {
        "architectures": ["Phi3ForCausalLM"],
        "max_position_embeddings": 131072,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "partial_rotary_factor": 0.75,
        "rope_scaling": LONGROPE,
        "sliding_window": 262144,
        "tie_word_embeddings": True,
        "vocab_size": 200064,
    },
}
# Keys of the file, and what they should say.
EXPECTED: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B": {"llama.context_length": 131072, "llama.rope.freq_base": 500000.0},
    "Mistral-7B-v0.1": {"llama.context_length": 4096, "llama.attention.head_count_kv": 8},
    "Mistral-Nemo": {"llama.context_length": 131072, "llama.rope.dimension_count": 128},
    "Qwen2.5-0.5B": {"qwen2.context_length": 32768, "qwen2.attention.key_length": 64},
    "Qwen3-0.6B": {"qwen3.context_length": 40960, "qwen3.attention.key_length": 128},
    "gemma-2-2b": {
        "gemma2.attn_logit_softcapping": 50.0,
        "gemma2.final_logit_softcapping": 30.0,
        "gemma2.attention.sliding_window": 4096,
    },
    "gemma-2-27b": {"gemma2.attention.key_length": 128, "gemma2.attention.head_count": 32},
    "gemma-3-1b": {
        "gemma3.attention.sliding_window": 512,
        "gemma3.rope.freq_base": 1000000.0,
        "gemma3.rope.freq_base_swa": 10000.0,
    },
    "gemma-3-4b": {
        "gemma3.attention.sliding_window": 1024,
        "gemma3.context_length": 131072,
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
        "gemma3.vocab_size": 262208,
    },
    "Phi-3-mini-4k": {"phi3.context_length": 2047, "phi3.attention.sliding_window": 2047},
    "Phi-3.5-mini": {
        "phi3.context_length": 131072,
        "phi3.rope.dimension_count": 96,
        "phi3.rope.scaling.original_context_length": 4096,
        "phi3.rope.scaling.attn_factor": pytest.approx(1.1902380714238083),
    },
    "Phi-4-mini": {"phi3.rope.dimension_count": 96, "phi3.attention.key_length": 128},
}


def transformers_config(config: dict[str, Any]) -> Any:
    """As transformers reads it."""
    import transformers

    names = {
        "Gemma3ForCausalLM": "Gemma3TextConfig",
        "Gemma3ForConditionalGeneration": "Gemma3Config",
    }
    (architecture,) = config["architectures"]
    name = names.get(architecture, architecture.replace("ForCausalLM", "Config"))
    return getattr(transformers, name)(**json.loads(json.dumps(config)))


def hub_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return shapes_of(config["architectures"][0], transformers_config(config))


def values_of(contents: ModelContents) -> dict[str, Any]:
    return {datum.key: datum.value for datum in contents.metadata}


def comparable(contents: ModelContents) -> tuple[Any, ...]:
    """Everything but the functions, which are not equal to each other."""
    tensors = [
        (plan.name, plan.shape, plan.source, plan.rows_together, np.asarray(plan.values).tolist())
        for plan in contents.tensors
    ]
    return contents.architecture, contents.metadata, tensors


def faults_of(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(ModelError) as caught:
        model_contents(config, shapes)
    return str(caught.value)


def tiny(architecture: str, **changes: Any) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """A tiny model as transformers would save it: config.json and shapes."""
    config = tiny_config(architecture, vocabulary=96, **changes)
    values = {**json.loads(config.to_json_string(use_diff=False)), "architectures": [architecture]}
    return values, shapes_of(architecture, config)


@pytest.mark.parametrize("name", CONFIG_CLASSES)
def test_the_defaults_are_those_of_transformers(name: str) -> None:
    import transformers

    fields = {f.name: f.default for f in dataclasses.fields(getattr(transformers, name))}
    own = CONFIG_CLASSES[name].defaults
    assert {key: value for key, value in own.items() if key in fields} == {
        key: fields[key] for key in own if key in fields
    }
    # These two are read by the model's code, or by the class before it has fields.
    assert set(own) - set(fields) <= {"head_dim", "sliding_window_pattern"}


def test_gemma_3_with_vision_has_the_defaults_of_its_language_model() -> None:
    assert GEMMA3_WITH_VISION.defaults == GEMMA3.defaults


@pytest.mark.parametrize("model", HUB)
def test_hub_files_and_those_of_transformers_5_mean_the_same(model: str) -> None:
    sparse = HUB[model]
    shapes = hub_shapes(sparse)
    complete = json.loads(transformers_config(sparse).to_json_string(use_diff=False))
    assert "rope_parameters" in json.dumps(complete)
    complete["architectures"] = sparse["architectures"]
    assert comparable(model_contents(complete, shapes)) == comparable(
        model_contents(sparse, shapes)
    )


@pytest.mark.parametrize("model", HUB)
def test_the_models_of_the_hub_are_described(model: str) -> None:
    found = values_of(model_contents(HUB[model], hub_shapes(HUB[model])))
    assert {key: found.get(key) for key in EXPECTED[model]} == EXPECTED[model]


def test_the_frequencies_of_llama_3_are_those_of_transformers() -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = HUB["Llama-3.2-1B"]
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](transformers_config(config))
    plain = 500000.0 ** -(np.arange(0, 64, 2) / 64)
    (factors,) = _computed(model_contents(config, hub_shapes(config)))
    assert factors.name == "rope_freqs.weight"
    np.testing.assert_allclose(plain / _values(factors), scaled.numpy(), rtol=1e-5)
    # Some waves are kept, some stretched, some in between.
    assert _values(factors).min() == 1 and _values(factors).max() == 32
    assert ((_values(factors) > 1.1) & (_values(factors) < 31)).any()


def test_phi_has_both_sets_of_factors() -> None:
    contents = model_contents(HUB["Phi-4-mini"], hub_shapes(HUB["Phi-4-mini"]))
    factors = {plan.name: _values(plan).tolist() for plan in _computed(contents)}
    assert factors == {
        "rope_factors_long.weight": [2.0] * 48,
        "rope_factors_short.weight": [1.0] * 48,
    }


def test_smollm2_becomes_the_file_that_it_came_from(packaged_model_dir: Path) -> None:
    path = find_packaged_gguf()
    assert path is not None
    file = read_gguf(path)
    weights = StoredWeights.of_model(packaged_model_dir)
    config = json.loads((packaged_model_dir / "config.json").read_text("utf-8"))
    contents = model_contents(config, weights.shapes)
    ours = values_of(contents)
    theirs = {k: v for k, v in file.metadata.items() if k.startswith("llama.")}
    assert {key: np.float32(ours[key]) for key in theirs} == {
        key: np.float32(value) for key, value in theirs.items()
    }
    shapes = {plan.name: plan.shape for plan in contents.tensors}
    assert shapes == {tensor.name: tensor.shape for tensor in file.tensors}
    for plan in contents.tensors:
        if plan.name.startswith("blk.7."):
            np.testing.assert_array_equal(_written(plan, weights), _stored(file, plan.name))


def test_the_rows_of_a_rotary_head_are_put_back_in_parts_too() -> None:
    rows = np.arange(6 * 8 * 5, dtype=np.float32).reshape(48, 5)
    whole = interleave_halves(unpermute(rows, 6), head_dim=8)
    np.testing.assert_array_equal(whole, rows)
    parts = [interleave_halves(unpermute(rows, 6)[i : i + 16], head_dim=8) for i in (0, 16, 32)]
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    bias = interleave_halves(np.array([0, 1, 2, 3], np.float32), head_dim=4)
    assert bias.tolist() == [0, 2, 1, 3]


def test_only_rotary_projections_need_their_rows_together() -> None:
    plans = model_contents(*tiny("LlamaForCausalLM", attention_bias=True)).tensors
    together = {plan.name: plan.rows_together for plan in plans if plan.rows_together != 1}
    assert together == {
        f"blk.{layer}.attn_{which}.{kind}": 32
        for layer in (0, 1)
        for which in "qk"
        for kind in ("weight", "bias")
    }


def test_every_norm_of_gemma_gets_its_one_added() -> None:
    for architecture in ("Gemma2ForCausalLM", "Gemma3ForCausalLM"):
        for plan in model_contents(*tiny(architecture)).tensors:
            changed = plan.transform is not None
            assert changed == plan.name.endswith("norm.weight"), plan.name
            if plan.transform is not None:
                assert plan.transform(np.array([0.5], np.float32)).tolist() == [1.5]


def test_both_spellings_of_a_language_model_with_vision_are_read() -> None:
    config, shapes = tiny("Gemma3ForConditionalGeneration")
    old_beginnings = {
        "model.language_model.": "language_model.model.",
        "model.": "",
        "lm_head.": "language_model.lm_head.",
    }
    old = {}
    for name, shape in shapes.items():
        new = next(beginning for beginning in old_beginnings if name.startswith(beginning))
        old[name.replace(new, old_beginnings[new], 1)] = shape
    assert set(old).isdisjoint(shapes)
    assert any(name.startswith("vision_tower.") for name in old)
    plans, old_plans = model_contents(config, shapes).tensors, model_contents(config, old).tensors
    plain = model_contents(*tiny("Gemma3ForCausalLM")).tensors
    assert [p.name for p in plans] == [p.name for p in old_plans] == [p.name for p in plain]
    assert {p.source for p in old_plans} < set(old)


def test_what_follows_from_something_else_is_left_out() -> None:
    config, shapes = tiny("LlamaForCausalLM", tie_word_embeddings=True)
    shapes["lm_head.weight"] = (96, 64)
    shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = (16,)
    names = {plan.name for plan in model_contents(config, shapes).tensors}
    assert "token_embd.weight" in names and "output.weight" not in names
    untied = model_contents({**config, "tie_word_embeddings": False}, shapes)
    assert "output.weight" in {plan.name for plan in untied.tensors}


def test_the_rows_of_the_embedding_decide_the_vocabulary() -> None:
    config, shapes = tiny("LlamaForCausalLM")
    shapes["model.embed_tokens.weight"] = (104, 64)
    assert values_of(model_contents(config, shapes))["llama.vocab_size"] == 104


@pytest.mark.parametrize("layers", [{"max_window_layers": 1}, {"layer_types": None}])
def test_a_window_that_llama_cpp_ignores_limits_the_context(layers: dict[str, Any]) -> None:
    config, shapes = tiny("Qwen3ForCausalLM")
    window = {**config, "use_sliding_window": True, "sliding_window": 100, **layers}
    window["layer_types"] = None if "max_window_layers" in layers else ["sliding_attention"] * 2
    assert values_of(model_contents(window, shapes))["qwen3.context_length"] == 100
    unused = {**window, "use_sliding_window": False}
    assert values_of(model_contents(unused, shapes))["qwen3.context_length"] == 512


ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
UNSUPPORTED: list[tuple[str, dict[str, Any], str]] = [
    ("LlamaForCausalLM", {"hidden_act": "gelu"}, "hidden_act"),
    ("LlamaForCausalLM", {"rope_parameters": {**ROPE, "rope_type": "dynamic"}}, "rope_type"),
    ("LlamaForCausalLM", {"rope_scaling": {"type": "longrope"}}, "rope_type"),
    ("LlamaForCausalLM", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("LlamaForCausalLM", {"rope_parameters": {"full_attention": ROPE}}, "rope_type"),
    (
        "LlamaForCausalLM",
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": 16}},
        "beta_fast",
    ),
    (
        "LlamaForCausalLM",
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}},
        "truncate",
    ),
    ("MistralForCausalLM", {"hidden_act": "relu"}, "hidden_act"),
    ("Qwen2ForCausalLM", {"rope_scaling": {"rope_type": "llama3"}}, "rope_type"),
    ("Qwen2ForCausalLM", {"head_dim": 32}, "head_dim"),
    ("Qwen3ForCausalLM", {"attention_bias": True}, "attention_bias"),
    ("Qwen3ForCausalLM", {"hidden_act": "gelu"}, "hidden_act"),
    ("Gemma2ForCausalLM", {"hidden_activation": "gelu"}, "hidden_activation"),
    ("Gemma2ForCausalLM", {"attention_bias": True}, "attention_bias"),
    ("Gemma2ForCausalLM", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    ("Gemma2ForCausalLM", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar"),
    ("Gemma2ForCausalLM", {"layer_types": ["full_attention"] * 4}, "layer_types"),
    ("Gemma2ForCausalLM", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("Gemma2ForCausalLM", {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
    ("Gemma3ForCausalLM", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("Gemma3ForCausalLM", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ("Gemma3ForCausalLM", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar"),
    (
        "Gemma3ForCausalLM",
        {"layer_types": None, "sliding_window_pattern": 3},
        "layer_types",
    ),
    (
        "Gemma3ForCausalLM",
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
        "rope_type",
    ),
    ("Gemma3ForCausalLM", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type"),
    ("Phi3ForCausalLM", {"hidden_act": "gelu"}, "hidden_act"),
    ("Phi3ForCausalLM", {"head_dim": 32}, "head_dim"),
    ("Phi3ForCausalLM", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type"),
    (
        "Phi3ForCausalLM",
        {"rope_scaling": {"type": "su", "long_factor": [1.0] * 8, "short_factor": [1.0] * 7}},
        "short_factor",
    ),
]


@pytest.mark.parametrize(("architecture", "changes", "path"), UNSUPPORTED)
def test_an_option_that_the_file_cannot_express_is_refused(
    architecture: str, changes: dict[str, Any], path: str
) -> None:
    config, shapes = tiny(architecture)
    model_contents(config, shapes)
    assert path in faults_of({**config, **changes}, shapes)


def test_all_faults_are_named_at_once() -> None:
    config, shapes = tiny("Qwen3ForCausalLM")
    del shapes["model.layers.1.self_attn.q_norm.weight"]
    shapes["model.layers.0.mlp.up_proj.weight"] = (95, 64)
    shapes["model.layers.0.mlp.router.weight"] = (4, 64)
    shapes["model.layers.2.input_layernorm.weight"] = (64,)
    config["hidden_act"] = "gelu"
    config["rope_parameters"] = {**ROPE, "rope_type": "dynamic"}
    text = faults_of(config, shapes)
    assert "6 problems" in text
    for part in (
        "hidden_act\n  is 'gelu'",
        "rope_parameters.rope_type\n  is 'dynamic'",
        "model.layers.1.self_attn.q_norm.weight\n  is missing",
        "model.layers.0.mlp.up_proj.weight\n  has shape 95 × 64; config.json makes it 96 × 64",
        "model.layers.0.mlp.router.weight\n  has no place",
        "model.layers.2.input_layernorm.weight\n  has no place",
    ):
        assert part in text


def test_a_model_without_an_embedding_is_refused() -> None:
    config, shapes = tiny("LlamaForCausalLM")
    del shapes["model.embed_tokens.weight"]
    assert "model.embed_tokens.weight\n  is missing" in faults_of(config, shapes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "64"),
        ("hidden_size", None),
        ("num_attention_heads", 0),
        ("num_hidden_layers", True),
        ("rms_norm_eps", -1.0),
        ("attention_bias", "no"),
        ("rope_parameters", {"rope_type": "linear"}),
    ],
)
def test_an_unusable_value_is_refused(key: str, value: Any) -> None:
    config, shapes = tiny("LlamaForCausalLM")
    text = faults_of({**config, key: value}, shapes)
    assert text.startswith("error: config.json: ") and "download the model again" in text


def test_other_architectures_are_refused_with_those_that_are_supported() -> None:
    other = {"architectures": ["MambaForCausalLM"]}
    assert not is_supported(other) and not is_supported({})
    text = faults_of(other, {})
    assert "MambaForCausalLM" in text
    assert all(name in text for name in supported_architectures())
    assert "names no class" in faults_of({}, {})
    assert all(is_supported({"architectures": [name]}) for name in supported_architectures())


def _computed(contents: ModelContents) -> list[TensorPlan]:
    return [plan for plan in contents.tensors if plan.values is not None]


def _values(plan: TensorPlan) -> Floats:
    assert plan.values is not None and plan.values.dtype == np.float32
    return plan.values


def _written(plan: TensorPlan, weights: StoredWeights) -> Floats:
    rows = weights.read_rows(plan.source, 0, plan.shape[0])
    return rows if plan.transform is None else plan.transform(rows)


def _stored(file: GgufFile, name: str) -> Floats:
    tensor = next(tensor for tensor in file.tensors if tensor.name == name)
    out = np.empty(tensor.shape, np.float32)
    file.dequantize_into(tensor, out)
    return out
