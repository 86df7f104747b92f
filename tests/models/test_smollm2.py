from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamafarm.models.gguf_file import GgufFile, read_gguf
from llamafarm.models.packaged import find_packaged_gguf
from llamafarm.models.smollm2 import hugging_face_name, unpermute

TEXTS = (
    "Hello world",
    "3 33 333 3333",
    "don't I'LL we've",
    "tabs\tand\r\nlines\n\n\n",
    "日本語 Ⅷ ½ ² ٣٤",
    "👩‍👩‍👧 naïve café ÅΩ á",
    "<|im_start|>user\nhi<|im_end|>\n",
    " \u00a0 \u3000 x",
)
LLAMA_CPP_IDS = {
    "a  5": [81, 256, 37],
    "x   12,345.67": [104, 333, 33, 34, 28, 35, 36, 37, 30, 38, 39],
    "3 33 333": [35, 216, 35, 35, 216, 35, 35, 35],
    "1e-5 0x1F": [33, 85, 29, 37, 216, 32, 104, 33, 54],
    "Ⅷ ½ ² ٣٤": [173, 223, 117, 216, 16738, 216, 19133, 216, 164, 113, 164, 114],
    "\n\n\n 7": [1116, 3805, 39],
    "2024-01-05:\t 10 mg": [34, 32, 34, 36, 29, 32, 33, 29, 32, 37, 42, 197, 216, 33, 32, 9209],
}


@pytest.fixture(scope="module")
def packaged_gguf() -> GgufFile:
    file = find_packaged_gguf()
    assert file is not None
    return read_gguf(file)


@pytest.fixture(scope="module")
def transformers_tokenizer(packaged_gguf: GgufFile) -> Any:
    """What transformers makes of the same file: right but for the digits."""
    from transformers import AutoTokenizer

    place = packaged_gguf.path
    return AutoTokenizer.from_pretrained(
        place.parent, gguf_file=place.name, local_files_only=True
    ).backend_tokenizer


def test_names_are_those_of_transformers() -> None:
    assert hugging_face_name("token_embd.weight") == "model.embed_tokens.weight"
    assert hugging_face_name("output_norm.weight") == "model.norm.weight"
    assert hugging_face_name("blk.12.attn_q.weight") == "model.layers.12.self_attn.q_proj.weight"


def test_unpermute_undoes_what_llama_cpp_does_to_rotary_weights() -> None:
    heads, head_dim, columns = 3, 8, 5
    weight = np.arange(heads * head_dim * columns).reshape(-1, columns)
    # convert_hf_to_gguf.py: LlamaModel.permute
    permuted = weight.reshape(heads, 2, head_dim // 2, columns).swapaxes(1, 2).reshape(weight.shape)
    assert not np.array_equal(permuted, weight)
    np.testing.assert_array_equal(unpermute(permuted, heads), weight)


def test_every_digit_is_a_token_of_its_own_as_in_llama_cpp(smollm2_tokenizer: Any) -> None:
    """Ids from llama.cpp's own tokenizer on the packaged file."""
    encode = smollm2_tokenizer.backend_tokenizer.encode
    for text, ids in LLAMA_CPP_IDS.items():
        assert encode(text, add_special_tokens=False).ids == ids, repr(text)


@pytest.mark.slow
def test_tokens_equal_transformers_where_there_is_no_digit(
    smollm2_tokenizer: Any, transformers_tokenizer: Any
) -> None:
    generator = random.Random(0)
    alphabet = "ab Z'\n\t\r.,-_  é漢👍\u00a0<|>"
    made = ["".join(generator.choices(alphabet, k=generator.randint(1, 40))) for _ in range(500)]
    ours = smollm2_tokenizer.backend_tokenizer
    for text in (*[t for t in TEXTS if not any(c.isnumeric() for c in t)], *made):
        expected = transformers_tokenizer.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False).ids == expected, repr(text)


def test_text_comes_back_from_its_tokens(smollm2_tokenizer: Any) -> None:
    for text in TEXTS:
        ids = smollm2_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert smollm2_tokenizer.decode(ids) == text


def test_special_tokens_and_template_are_the_models(smollm2_tokenizer: Any) -> None:
    assert smollm2_tokenizer.vocab_size == 49152
    assert (smollm2_tokenizer.eos_token_id, smollm2_tokenizer.pad_token_id) == (2, 2)
    assert smollm2_tokenizer.bos_token == "<|im_start|>"
    text = smollm2_tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert smollm2_tokenizer("Hi")["input_ids"] == smollm2_tokenizer.encode(
        "Hi", add_special_tokens=False
    )


@pytest.mark.slow
def test_weights_equal_those_that_transformers_dequantises_bitwise(
    packaged_model_dir: Path, packaged_gguf: GgufFile
) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, GgufConfig

    place = packaged_gguf.path
    reference = AutoModelForCausalLM.from_pretrained(
        place.parent,
        gguf_file=place.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
    ).state_dict()
    reference.pop("lm_head.weight")
    with safe_open(packaged_model_dir / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(reference)
        assert all(torch.equal(file.get_tensor(name), reference[name]) for name in file.keys())  # noqa: SIM118


@pytest.mark.slow
def test_the_whole_model_answers(packaged_model_dir: Path) -> None:
    from llamafarm.data.rows import Message
    from llamafarm.evaluation.generation import Generator
    from llamafarm.models.load import load_finished_model

    model, tokenizer = load_finished_model(packaged_model_dir)
    assert model.config.tie_word_embeddings
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    answer = Generator(model, tokenizer).generate(
        [Message("user", "What is the capital of France?")], max_new_tokens=16
    )
    assert answer == "The capital of France is Paris."


@pytest.mark.slow
def test_configuration_is_the_original_models(packaged_model_dir: Path) -> None:
    config = json.loads((packaged_model_dir / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-05
    assert config["rope_theta"] == 100000.0
    assert config["max_position_embeddings"] == 8192
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
