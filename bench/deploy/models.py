"""The models that are converted: the packaged one with an adapter trained for it, random Llamas of
any size, and tiny random models of every architecture.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.environment import ROOT
from llamafarm.models.record import RECORD_FILE, ModelRecord

TRAINING_STEPS = 8
_VOCABULARY = 49152
_RANK = 8
_SHARD_BYTES = 500_000_000
_END_TOKEN = 2
# The numbers are repeated from here on: only their size is of interest.
_DRAWN = 1 << 22


@dataclass(frozen=True, slots=True)
class Llama:
    """The size of a random Llama with SmolLM2's tokenizer, its embedding its output too."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int

    def linear_layers(self) -> Mapping[str, tuple[int, int]]:
        """Shapes [out, in] of the linear layers of one layer, by name."""
        narrow = self.hidden // self.heads * self.key_value_heads
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (narrow, self.hidden),
            "self_attn.v_proj": (narrow, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor of the base, in the order of the file."""
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (_VOCABULARY, self.hidden),
            "model.norm.weight": (self.hidden,),
        }
        for layer in range(self.layers):
            start = f"model.layers.{layer}"
            for name, shape in self.linear_layers().items():
                shapes[f"{start}.{name}.weight"] = shape
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes[f"{start}.{norm}.weight"] = (self.hidden,)
        return shapes

    def adapter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of a LoRA adapter on all linear layers, as PEFT names them."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            for name, (rows, columns) in self.linear_layers().items():
                start = f"base_model.model.model.layers.{layer}.{name}"
                shapes[f"{start}.lora_A.weight"] = (_RANK, columns)
                shapes[f"{start}.lora_B.weight"] = (rows, _RANK)
        return shapes

    def config(self) -> dict[str, Any]:
        """config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": _VOCABULARY,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": _END_TOKEN,
            "torch_dtype": "bfloat16",
        }


MIDDLE = Llama("random Llama, 0.7 GB", 2048, 5632, 5, 32, 8)
LARGE = Llama("random Llama, 1.5 GB", 2048, 5632, 14, 32, 8)


def trained_adapter(directory: Path) -> Path:
    """The demo's run with the packaged model, cut short: LoRA on all linear layers."""
    run = directory / "run"
    if not (run / "final_model").is_dir():
        command = [sys.executable, "-m", "llamafarm", "train", "--strategy", "demo3_quick"]
        command += ["--strategy-file", "demos/strategies.yaml", "--output", str(run)]
        command += ["--set", f"training_args.max_steps={TRAINING_STEPS}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return run


def random_adapter(directory: Path, size: Llama) -> Path:
    """A random Llama in bfloat16 shards, and a random adapter for it with a run's record."""
    folder = directory / f"llama-{size.hidden}x{size.layers}"
    base, adapter = folder / "base", folder / "adapter"
    if not (adapter / RECORD_FILE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        for made in (base, adapter):
            shutil.copytree(tokenizer(directory), made)
        _write_base(base, size)
        _write_adapter(adapter, base, size)
    return adapter


def tiny_adapter(directory: Path, architecture: str, size: str, **changes: Any) -> Path:
    """A tiny random model of an architecture with SmolLM2's tokenizer, and a random adapter on it.

    changes: keys of its configuration.
    """
    from tests.export.architectures_for_tests import tiny_model
    from tests.export.exported import adapter_on

    folder = directory / size / architecture
    if not folder.is_dir():
        base = tiny_model(architecture, folder / "base", tokenizer=tokenizer(directory), **changes)
        adapter_on(base, folder / "adapter")
    return folder / "adapter"


def tokenizer(directory: Path) -> Path:
    """SmolLM2's tokenizer files and chat template, without weights."""
    from llamafarm.models.gguf_file import read_gguf
    from llamafarm.models.packaged import find_packaged_gguf
    from llamafarm.models.smollm2 import write_tokenizer_files

    folder = directory / "tokenizer"
    if not folder.is_dir():
        file = find_packaged_gguf()
        if file is None:
            raise FileNotFoundError("the packaged model is not installed: run `make setup` first")
        folder.mkdir(parents=True)
        write_tokenizer_files(read_gguf(file), folder)
    return folder


def _write_base(directory: Path, size: Llama) -> None:
    shards = list(shards_of(size.shapes()))
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    places: dict[str, str] = {}
    for name, shard in zip(names, shards, strict=True):
        _write_safetensors(directory / name, shard, "BF16", scale=0.02)
        places |= dict.fromkeys(shard, name)
    index = {"metadata": {}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    (directory / "config.json").write_text(json.dumps(size.config()), "utf-8")


def shards_of(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Tensors together that are about _SHARD_BYTES long in bfloat16."""
    shard: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if shard and 2 * sum(map(prod, [*shard.values(), shape])) > _SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def _write_adapter(directory: Path, base: Path, size: Llama) -> None:
    from llamafarm.models.fingerprint import weight_files, weights_fingerprint

    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": _RANK,
        "lora_alpha": 2 * _RANK,
        "target_modules": [name.rsplit(".", 1)[-1] for name in size.linear_layers()],
        "base_model_name_or_path": str(base),
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings), "utf-8")
    shapes = size.adapter_shapes()
    _write_safetensors(directory / "adapter_model.safetensors", shapes, "F32", scale=0.02)
    record = ModelRecord(
        base_requested=str(base),
        base_name=str(base),
        base_fingerprint=weights_fingerprint(weight_files(base)),
        base_dtype="bfloat16",
        add_bos=False,
        end_token_id=_END_TOKEN,
    )
    (directory / RECORD_FILE).write_bytes(record.to_bytes())


def _write_safetensors(
    path: Path, shapes: Mapping[str, Sequence[int]], kind: str, *, scale: float
) -> None:
    drawn = np.random.default_rng(0).standard_normal(_DRAWN, np.float32) * np.float32(scale)
    numbers: npt.NDArray[Any] = drawn
    if kind == "BF16":
        numbers = (drawn.view(np.uint32) >> 16).astype(np.uint16)
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * numbers.itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            for first in range(0, prod(shape), _DRAWN):
                stream.write(numbers[: prod(shape) - first].data)
