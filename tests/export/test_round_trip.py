"""A model written as a GGUF file, in the real llama.cpp engine, predicts what it predicts in
transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamafarm.export.architectures import supported_architectures
from llamafarm.models.directory import check_model_directory
from tests.export.architectures_for_tests import (
    compare_with_transformers,
    tiny_model,
    write_float32_gguf,
)

VOCABULARY = 256
IDS: list[int] = np.random.default_rng(0).integers(8, VOCABULARY, 300).tolist()
# Inside the windows of 24 tokens, at their edge, and far beyond.
POSITIONS = (0, 7, 23, 24, 100, 199)
# In nats. The engine keeps keys and values as float16; with float32 the differences are 1e-5 or
# less, and 3e-3 for Gemma, whose activation is a float16 table in llama.cpp.
TOLERANCE = 0.02

THETA = {"rope_theta": 500.0}
YARN = {**THETA, "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    **THETA,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
}
LONGROPE: dict[str, Any] = {
    **THETA,
    "rope_type": "longrope",
    "long_factor": np.linspace(1, 4, 8).tolist(),
    "short_factor": np.linspace(1, 1.5, 8).tolist(),
}
PARTIAL_LONGROPE = {
    **LONGROPE,
    "long_factor": LONGROPE["long_factor"][:6],
    "short_factor": LONGROPE["short_factor"][:6],
    "partial_rotary_factor": 0.75,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with biases": ("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    "llama without groups": ("LlamaForCausalLM", {"num_key_value_heads": 4}),
    "llama, linear": (
        "LlamaForCausalLM",
        {"rope_parameters": {**THETA, "rope_type": "linear", "factor": 3.0}},
    ),
    "llama, llama3": ("LlamaForCausalLM", {"rope_parameters": LLAMA3}),
    "llama, yarn": ("LlamaForCausalLM", {"rope_parameters": YARN}),
    "llama, yarn with its attention factor": (
        "LlamaForCausalLM",
        {"rope_parameters": {**YARN, "attention_factor": 0.7}},
    ),
    "llama, yarn with mscale": (
        "LlamaForCausalLM",
        {"rope_parameters": {**YARN, "mscale": 2.0, "mscale_all_dim": 0.5}},
    ),
    "qwen2, yarn": ("Qwen2ForCausalLM", {"rope_parameters": YARN}),
    "qwen3, yarn": ("Qwen3ForCausalLM", {"rope_parameters": YARN}),
    "gemma2, linear": (
        "Gemma2ForCausalLM",
        {"rope_parameters": {**THETA, "rope_type": "linear", "factor": 4.0}},
    ),
    "gemma3, linear": ("Gemma3ForCausalLM", {"rope_parameters": GEMMA3_ROPE}),
    "phi3, partial": (
        "Phi3ForCausalLM",
        {"rope_parameters": {**THETA, "rope_type": "default", "partial_rotary_factor": 0.75}},
    ),
    "phi3, short factors": (
        "Phi3ForCausalLM",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 256},
    ),
}
UNTIED = [name for name in supported_architectures() if name != "Gemma2ForCausalLM"]


def assert_same_predictions(
    tmp_path: Path,
    architecture: str,
    positions: tuple[int, ...] = POSITIONS,
    context: int = 256,
    **changes: Any,
) -> None:
    model = tiny_model(architecture, tmp_path / "model", vocabulary=VOCABULARY, **changes)
    write_float32_gguf(model, tmp_path / "model.gguf")
    for difference in compare_with_transformers(
        model, tmp_path / "model.gguf", IDS, positions, context=context
    ):
        assert difference.log_probability < TOLERANCE, difference
        assert difference.same_top, difference


@pytest.mark.parametrize("architecture", supported_architectures())
def test_llama_cpp_predicts_what_transformers_predicts(architecture: str, tmp_path: Path) -> None:
    assert_same_predictions(tmp_path, architecture)


@pytest.mark.parametrize("architecture", UNTIED)
def test_a_head_of_its_own_is_used(architecture: str, tmp_path: Path) -> None:
    assert_same_predictions(tmp_path, architecture, tie_word_embeddings=False)


@pytest.mark.parametrize("variant", VARIANTS)
def test_options_that_change_the_computation_arrive(variant: str, tmp_path: Path) -> None:
    architecture, changes = VARIANTS[variant]
    assert_same_predictions(tmp_path, architecture, **changes)


@pytest.mark.parametrize("rope", [LONGROPE, PARTIAL_LONGROPE], ids=["whole", "partial"])
def test_the_long_factors_of_phi_hold_beyond_the_original_context(
    rope: dict[str, Any], tmp_path: Path
) -> None:
    assert_same_predictions(
        tmp_path,
        "Phi3ForCausalLM",
        positions=(256, 280, 299),
        context=512,
        rope_parameters=rope,
        original_max_position_embeddings=256,
    )


@pytest.mark.parametrize("architecture", ["MistralForCausalLM", "Phi3ForCausalLM"])
def test_an_ignored_window_makes_no_difference_within_it(architecture: str, tmp_path: Path) -> None:
    assert_same_predictions(tmp_path, architecture, (0, 30, 62), sliding_window=64)


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [
        ("LlamaForCausalLM", "rope_parameters", {"rope_theta": 20000.0}),
        ("Gemma2ForCausalLM", "sliding_window", 25),
        ("Gemma2ForCausalLM", "attn_logit_softcapping", 30.0),
        ("Gemma3ForCausalLM", "rope_local_base_freq", 20000.0),
        ("Phi3ForCausalLM", "rope_parameters", {"partial_rotary_factor": 0.75}),
    ],
)
def test_a_wrong_value_would_be_seen(
    architecture: str, key: str, value: Any, tmp_path: Path
) -> None:
    """The comparison is sharp enough for each of these."""
    model = tiny_model(architecture, tmp_path / "model", vocabulary=VOCABULARY)
    right = (model / "config.json").read_text("utf-8")
    wrong = json.loads(right)
    if key == "rope_local_base_freq":
        wrong["rope_parameters"]["sliding_attention"]["rope_theta"] = value
    else:
        wrong[key] = {**wrong[key], **value} if isinstance(value, dict) else value
    (model / "config.json").write_text(json.dumps(wrong), "utf-8")
    write_float32_gguf(model, tmp_path / "model.gguf")
    (model / "config.json").write_text(right, "utf-8")
    found = compare_with_transformers(model, tmp_path / "model.gguf", IDS, (100, 199), context=256)
    assert max(difference.log_probability for difference in found) > 2 * TOLERANCE


def test_a_tiny_model_is_a_complete_model(smollm2_tokenizer_dir: Path, tmp_path: Path) -> None:
    model = tiny_model("Qwen3ForCausalLM", tmp_path / "model", tokenizer=smollm2_tokenizer_dir)
    check_model_directory(model)
    assert (model / "chat_template.jinja").is_file()
    assert (model / "model.safetensors").stat().st_size < 15_000_000
