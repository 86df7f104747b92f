"""A merged model as a Hugging Face directory: weights in shards, configuration, tokenizer."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from llamafarm.errors import ModelError
from llamafarm.export.encodings import encode
from llamafarm.export.weights import WeightSource, row_ranges
from llamafarm.files import append_stream, to_json_bytes, write_bytes

_SHARD_BYTES = 5_000_000_000
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def stored_type(dtype: str) -> str:
    """What a merged tensor is written as: what the base stored, float64 as float32."""
    return "F32" if dtype == "F64" else dtype


def model_nbytes(weights: WeightSource) -> int:
    """Size of the weights on disk, in bytes. Raises ModelError for a tensor of whole numbers, or of
    a type that holds quantised weights.
    """
    return sum(_nbytes(weights, name) for name in weights.shapes)


@dataclass(slots=True)
class _Shard:
    names: list[str] = field(default_factory=list)
    nbytes: int = 0


def write_weights(
    directory: Path, weights: WeightSource, *, on_bytes: Callable[[int], None] | None = None
) -> None:
    """model.safetensors, or shards with their index; names and limits as transformers has them.

    Written in parts, each file fsynced. on_bytes: told how many bytes are written so far.
    """
    shards = _shards(weights)
    done = 0

    def written(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if on_bytes is not None:
            on_bytes(done)

    names = _file_names(len(shards))
    for name, shard in zip(names, shards, strict=True):
        _write_shard(directory / name, shard, weights, written)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
            "weight_map": {t: n for n, s in zip(names, shards, strict=True) for t in s.names},
        }
        write_bytes(directory / "model.safetensors.index.json", to_json_bytes(index))


def merged_config(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, untied: bool
) -> dict[str, Any]:
    """The base's configuration as it is after the merge: the vocabulary may have grown, and the
    head may have become a matrix of its own.
    """
    merged = dict(config)
    text = dict(merged["text_config"]) if isinstance(merged.get("text_config"), dict) else merged
    rows = next((s[0] for name, s in shapes.items() if name.endswith("embed_tokens.weight")), None)
    if rows is not None and text.get("vocab_size") != rows:
        text["vocab_size"] = rows
    if untied:
        text["tie_word_embeddings"] = False
        merged["tie_word_embeddings"] = False
    if text is not merged:
        merged["text_config"] = text
    return merged


def _shards(weights: WeightSource) -> Sequence[_Shard]:
    shards = [_Shard()]
    for name in sorted(weights.shapes):
        nbytes = _nbytes(weights, name)
        if shards[-1].names and shards[-1].nbytes + nbytes > _SHARD_BYTES:
            shards.append(_Shard())
        shards[-1].names.append(name)
        shards[-1].nbytes += nbytes
    return shards


def _file_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _write_shard(
    path: Path, shard: _Shard, weights: WeightSource, written: Callable[[int], None]
) -> None:
    with append_stream(path) as stream:
        stream.write(_header(shard, weights))
        for name in shard.names:
            kind = stored_type(weights.dtypes[name])
            for start, stop in row_ranges(weights.shapes[name]):
                rows = weights.read_rows(name, start, stop)
                data = encode(rows.reshape(len(rows), -1), kind, tensor=name)
                stream.write(data.data)
                written(data.nbytes)


def _header(shard: _Shard, weights: WeightSource) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in shard.names:
        start, end = end, end + _nbytes(weights, name)
        kind, shape = stored_type(weights.dtypes[name]), list(weights.shapes[name])
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _nbytes(weights: WeightSource, name: str) -> int:
    size = _ITEM_BYTES.get(stored_type(weights.dtypes[name]))
    if size is None:
        raise ModelError(
            f"{name} is stored as {weights.dtypes[name]}, which cannot be merged",
            hint="F32, F16, BF16 and F64 weights are merged; take the model's original weights",
        )
    return prod(weights.shapes[name]) * size
