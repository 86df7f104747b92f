"""Tiny random models of every architecture that can become a GGUF file, and such files of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.export.architectures import ModelContents, model_contents
from llamafarm.export.contents import Metadatum
from llamafarm.export.gguf_writer import TypedTensor, write_gguf
from llamafarm.export.weights import StoredWeights
from llamafarm.models.llama_cpp import LlamaCpp

SMOLLM2_VOCABULARY = 49152
_SHARED: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
# Heads that are wider than hidden_size / heads, and windows that are shorter than a prompt, where
# the architecture has them; enough layers for one of each type.
_OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "LlamaForCausalLM": ("LlamaConfig", {"head_dim": 32}),
    "MistralForCausalLM": ("MistralConfig", {"head_dim": 32}),
    "Qwen2ForCausalLM": ("Qwen2Config", {}),
    "Qwen3ForCausalLM": ("Qwen3Config", {"head_dim": 32}),
    "Gemma2ForCausalLM": (
        "Gemma2Config",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 24, "num_hidden_layers": 4},
    ),
    "Gemma3ForCausalLM": (
        "Gemma3TextConfig",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 24, "num_hidden_layers": 7},
    ),
    "Gemma3ForConditionalGeneration": (
        "Gemma3Config",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 24, "num_hidden_layers": 7},
    ),
    "Phi3ForCausalLM": ("Phi3Config", {}),
}


def tiny_config(architecture: str, *, vocabulary: int = SMOLLM2_VOCABULARY, **changes: Any) -> Any:
    """The configuration of a tiny model; changes: keys of the language model."""
    import transformers

    name, own = _OWN[architecture]
    values = {**_SHARED, "vocab_size": vocabulary, **own, **changes}
    if name == "Gemma3Config":
        values = {
            "text_config": values,
            "vision_config": _VISION,
            "mm_tokens_per_image": 4,
            "tie_word_embeddings": values.get("tie_word_embeddings", True),
            "image_token_index": 5,
            "boi_token_index": 6,
            "eoi_token_index": 7,
        }
    return getattr(transformers, name)(**values)


def tiny_model(
    architecture: str,
    directory: Path,
    *,
    tokenizer: Path | None = None,
    vocabulary: int = SMOLLM2_VOCABULARY,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A complete Hugging Face directory of about 10 MB; returns it.

    tokenizer: a directory whose files are copied, of SmolLM2's tokenizer if the vocabulary is its.
    The weights are large enough that every part of the model shows in the logits.
    """
    import torch
    import transformers

    config = tiny_config(architecture, vocabulary=vocabulary, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, architecture)(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.3 if parameter.dim() == 1 else 0.15)
            if parameter.dim() == 1 and "Gemma" not in architecture:
                parameter.data += 0.7
        model.save_pretrained(directory)
    for file in tokenizer.iterdir() if tokenizer else ():
        shutil.copy(file, directory)
    return directory


def contents_of(directory: Path) -> ModelContents:
    """What the model in a directory becomes."""
    config = json.loads((directory / "config.json").read_text("utf-8"))
    return model_contents(config, StoredWeights.of_model(directory).shapes)


def write_float32_gguf(directory: Path, path: Path) -> ModelContents:
    """A GGUF file of the model in a directory, with a made-up vocabulary of the right length."""
    contents = contents_of(directory)
    rows = next(plan.shape[0] for plan in contents.tensors if plan.name == "token_embd.weight")
    vocabulary = (
        Metadatum("tokenizer.ggml.model", "gpt2", "string"),
        Metadatum("tokenizer.ggml.pre", "smollm", "string"),
        Metadatum("tokenizer.ggml.tokens", tuple(f"t{n}" for n in range(rows)), "string[]"),
        Metadatum("tokenizer.ggml.token_type", (1,) * rows, "int32[]"),
        Metadatum("tokenizer.ggml.merges", ("t 1",), "string[]"),
        Metadatum("tokenizer.ggml.eos_token_id", 2, "uint32"),
    )
    write_gguf(
        path,
        contents.architecture,
        [*contents.metadata, *vocabulary],
        [TypedTensor(plan, "F32") for plan in contents.tensors],
        StoredWeights.of_model(directory),
        threads=1,
    )
    return contents


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two predictions after the token at a position. log_probability: the largest
    difference of any token's, in nats.
    """

    position: int
    log_probability: float
    same_top: bool


def compare_with_transformers(
    directory: Path, path: Path, ids: Sequence[int], positions: Sequence[int], *, context: int
) -> list[Difference]:
    """What llama.cpp and transformers (float32) predict for rows that end at each position.

    context: what the engine is started with, in tokens.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(directory)
    # The window and the caps of Gemma are exact in this implementation.
    model = getattr(transformers, config.architectures[0]).from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    differences = []
    with LlamaCpp(path, context_tokens=context, threads=2) as engine:
        for position in positions:
            row = list(ids[: position + 1])
            with torch.no_grad():
                logits = model(torch.tensor([row])).logits[0, -1]
            expected = torch.log_softmax(logits, -1).tolist()
            found = engine.next_token(row, likeliest=len(expected))
            assert len(found.log_probabilities) == len(expected)
            largest = max(abs(p - expected[i]) for i, p in found.log_probabilities.items())
            same_top = found.top == expected.index(max(expected))
            differences.append(Difference(position, largest, same_top))
    return differences


def shapes_of(architecture: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a model of any size; none of them is made."""
    import torch
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, architecture)(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
