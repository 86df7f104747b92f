"""Training state as safetensors and JSON: no pickle, and every float comes back as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

MAX_SHARD_BYTES = 2 * 1024**3


def model_files(state: Mapping[str, Tensor], stem: str) -> Iterator[tuple[str, bytes]]:
    """`<stem>.safetensors`, or shards with an index in Hugging Face's layout. One shard in memory
    at a time.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save

    pattern = stem + "{suffix}.safetensors"
    split = split_torch_state_dict_into_shards(
        dict(state), filename_pattern=pattern, max_shard_size=MAX_SHARD_BYTES
    )
    for filename, names in split.filename_to_tensors.items():
        tensors = {name: state[name].detach().cpu().contiguous() for name in names}
        yield filename, save(tensors, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        yield f"{stem}.safetensors.index.json", json.dumps(index, indent=2).encode()


def named_parameters_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """Names of the optimizer's parameters, in the order of its state_dict indices."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def split_optimizer_state(
    optimizer: torch.optim.Optimizer, names: list[str]
) -> tuple[bytes, dict[str, Any]]:
    """The state as (safetensors bytes, JSON values). Tensors are called `<parameter>|<entry>`."""
    from safetensors.torch import save

    raw = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entries in raw["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{names[index]}|{key}"] = value.detach().cpu().contiguous()
            else:
                values.setdefault(names[index], {})[key] = encode(value)
    groups = [
        {k: encode(v) for k, v in group.items() if k != "params"} | {"params": group["params"]}
        for group in raw["param_groups"]
    ]
    return save(tensors), {"values": values, "param_groups": groups, "names": names}


def join_optimizer_state(
    optimizer: torch.optim.Optimizer, data: bytes, saved: Mapping[str, Any]
) -> None:
    """Put a saved state back into an optimizer made for the same parameters in the same order."""
    from safetensors.torch import load

    index = {name: number for number, name in enumerate(saved["names"])}
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in load(data).items():
        parameter, key = name.rsplit("|", 1)
        state.setdefault(index[parameter], {})[key] = tensor
    for parameter, entries in saved["values"].items():
        decoded = {key: decode(value) for key, value in entries.items()}
        state.setdefault(index[parameter], {}).update(decoded)
    groups = [
        {k: v if k == "params" else decode(v) for k, v in g.items()} for g in saved["param_groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def encode(value: Any) -> Any:
    """A JSON value from which `decode` makes the same Python value: non-finite floats, tuples and
    tensors too.
    """
    if isinstance(value, Tensor):
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, tuple):
        return {"tuple": [encode(v) for v in value]}
    if isinstance(value, list):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {"dict": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"an optimizer state entry of type {type(value).__name__} cannot be saved as JSON"
    )


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    if "tuple" in value:
        return tuple(decode(v) for v in value["tuple"])
    if "float" in value:
        return float(value["float"])
    return {decode(k): decode(v) for k, v in value["dict"]}
