"""SmolLM2-135M-Instruct as a Hugging Face directory, made from its GGUF file.

This knows one model and its file, which is why it takes seconds: any other GGUF goes through
transformers (gguf_model.py). Both give bitwise the same weights; a test compares them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamafarm.files import to_json_bytes, write_bytes
from llamafarm.models.gguf_file import GgufFile

# Counts up whenever the files written here change, so that an older cache entry is not used.
FORMAT_VERSION = 1

_MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROTARY = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
_CONTROL_TOKEN = 3


def write_hugging_face_directory(gguf: GgufFile, directory: Path) -> None:
    """Weights in float32, configuration, tokenizer, chat template, as transformers saves them."""
    write_tokenizer_files(gguf, directory)
    special = _special_tokens(gguf.metadata)
    write_bytes(directory / "config.json", to_json_bytes(_model_config(gguf.metadata)))
    generation = {f"{role}_token_id": special[role] for role in ("bos", "eos", "pad")}
    write_bytes(directory / "generation_config.json", to_json_bytes(generation))
    write_bytes(directory / "model.safetensors", _safetensors_image(gguf))


def write_tokenizer_files(gguf: GgufFile, directory: Path) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    template = str(gguf.metadata["tokenizer.chat_template"])
    write_bytes(directory / "tokenizer.json", _build_tokenizer(gguf.metadata).encode("utf-8"))
    write_bytes(
        directory / "tokenizer_config.json", to_json_bytes(_tokenizer_config(gguf.metadata))
    )
    write_bytes(directory / "chat_template.jinja", template.encode("utf-8"))


def _special_tokens(metadata: Mapping[str, Any]) -> dict[str, int]:
    keys = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    return {role: int(metadata[f"tokenizer.ggml.{key}_token_id"]) for role, key in keys.items()}


def _model_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, in the spelling that transformers 4 and 5 both read."""
    import numpy as np

    special = _special_tokens(metadata)
    # GGUF holds float32: 1e-05 comes back as 9.99999974e-06 unless its shortest spelling is taken.
    epsilon = float(str(np.float32(metadata["llama.attention.layer_norm_rms_epsilon"])))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": metadata["llama.vocab_size"],
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.rope.dimension_count"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": epsilon,
        "rope_theta": metadata["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": special["bos"],
        "eos_token_id": special["eos"],
        "pad_token_id": special["pad"],
    }


def _build_tokenizer(metadata: Mapping[str, Any]) -> str:
    """tokenizer.json: byte-level BPE with the vocabulary and merges of the file."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    names: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = digit_splitting_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(name, special=True, normalized=False)
            for name, kind in zip(names, kinds, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    return str(tokenizer.to_str(pretty=False))


def digit_splitting_pre_tokenizer() -> Any:
    """llama.cpp's `smollm`: every digit alone, then GPT-2's words.

    transformers' own GGUF path leaves the digits out, and so splits `a  5` differently from the
    model's training.
    """
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _tokenizer_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    names: list[str] = metadata["tokenizer.ggml.tokens"]
    return {
        # The plain class takes tokenizer.json as it stands; GPT2Tokenizer would replace its
        # pre-tokenizer.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": names[number] for role, number in _special_tokens(metadata).items()},
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata["llama.context_length"],
    }


def _safetensors_image(gguf: GgufFile) -> memoryview:
    """The bytes of model.safetensors: length of the header, header, tensors one after the other.

    Written by hand so that every tensor is dequantised straight into its place: half the memory and
    a third of the time of handing a dictionary of arrays to `safetensors.save`.
    """
    import numpy as np

    names = {hugging_face_name(tensor.name): tensor for tensor in gguf.tensors}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(names):
        start, end = end, end + 4 * int(np.prod(names[name].shape))
        header[name] = {"dtype": "F32", "shape": names[name].shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    image = np.empty(len(head) + end, dtype=np.uint8)
    image[: len(head)] = np.frombuffer(head, dtype=np.uint8)
    weights = image[len(head) :].view(np.float32)
    for name, tensor in names.items():
        start, end = (offset // 4 for offset in header[name]["data_offsets"])
        weight = weights[start:end].reshape(tensor.shape)
        gguf.dequantize_into(tensor, weight)
        heads = _ROTARY.get(tensor.name.split(".")[-2])
        if heads:
            weight[:] = unpermute(weight, int(gguf.metadata[heads]))
    return image.data


def unpermute(weight: Any, num_heads: int) -> Any:
    """llama.cpp interleaves the two halves of every rotary head; torch keeps them one after the
    other.

    weight: [num_heads * head_dim, d_in]. Returns a copy of the same shape.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def hugging_face_name(name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    *block, module, kind = name.split(".")
    prefix = f"model.layers.{block[1]}." if block else ""
    return f"{prefix}{_MODULES[module]}.{kind}"
