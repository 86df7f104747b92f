"""Whether a model's architecture may be packed: measured on a tiny random copy of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from llamafarm.data.tokenized import ListRows
from llamafarm.models.packed import label_logits, pack, use_packed_attention

_BUILD_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    NotImplementedError,
)
_TINY_VOCABULARY = 64
_TINY_WINDOW = 4
_TOLERANCE = 1e-4
_LENGTHS = (9, 5, 12)
_PREFIX = 3
_LIMITS = {
    "intermediate_size": 128,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
    "n_inner": 128,
    "num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 8,
}


@dataclass(frozen=True, slots=True)
class Packability:
    """The answer and its evidence."""

    packed: bool
    reason: str


def probe_packing(config: Any) -> Packability:
    """Run a tiny random copy packed and unpacked, and compare the logits.

    config: a transformers config. Anything that goes wrong in building or running the copy is an
    answer too:
    one conversation a row then.
    """
    from huggingface_hub.errors import StrictDataclassError

    rope = getattr(config, "rope_scaling", None) or getattr(config, "rope_parameters", None) or {}
    kinds = {
        str(part.get("rope_type")) for part in (rope, *rope.values()) if isinstance(part, dict)
    }
    if kinds & {"longrope", "dynamic"}:
        return Packability(
            False, f"{kinds & {'longrope', 'dynamic'}} rope looks at the longest position of a row"
        )
    try:
        difference = _largest_difference(config)
    except (*_BUILD_ERRORS, StrictDataclassError) as error:
        detail = f"{type(error).__name__}: {str(error)[:120]}"
        return Packability(False, f"a tiny copy cannot be run packed ({detail})")
    if not difference <= _TOLERANCE:
        return Packability(
            False, f"packed and unpacked logits of a tiny copy differ by {difference:.1e}"
        )
    return Packability(
        True, f"packed and unpacked logits of a tiny copy agree to {max(difference, 1e-7):.0e}"
    )


def _largest_difference(config: Any) -> float:
    """Largest logit difference, in standard deviations of the logits where those exceed 1."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny = _tiny_config(config)
        plain = AutoModelForCausalLM.from_config(tiny, attn_implementation="eager").float().eval()
        packed = AutoModelForCausalLM.from_config(tiny, attn_implementation="eager").float().eval()
        _randomise(plain)
        packed.load_state_dict(plain.state_dict())
        use_packed_attention(packed)
        rows = _probe_rows()
        with torch.no_grad():
            whole = label_logits(packed, pack(rows, range(len(rows))), packed=True)
            single = [label_logits(plain, pack(rows, [i]), packed=False) for i in range(len(rows))]
    unpacked = torch.cat(single)
    return float((whole - unpacked).abs().max() / unpacked.std().clamp(min=1.0))


def _randomise(model: torch.nn.Module) -> None:
    """Weights of a size that lets attention look at several tokens, and so shows where it looks."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim < 2:
                parameter.add_(noise * 0.2)
            else:
                scale = 1.0 if id(parameter) in embeddings else parameter.shape[-1] ** -0.5
                parameter.copy_(noise * scale)


def _probe_rows() -> ListRows:
    random = np.random.default_rng(0)
    prefix = random.integers(5, _TINY_VOCABULARY, _PREFIX)
    rows = []
    for length in _LENGTHS:
        ids = np.concatenate([prefix, random.integers(5, _TINY_VOCABULARY, length)])
        rows.append((ids.tolist(), [t > _PREFIX for t in range(len(ids))]))
    return ListRows(rows)


def _tiny_config(config: Any) -> Any:
    """The same architecture with few layers (every kind of layer kept) and a small vocabulary."""
    values = dict(config.to_dict())
    kinds = values.get("layer_types")
    layers = int(values.get("num_hidden_layers") or values.get("n_layer") or 2)
    keep = min(layers, max(2, *(kinds.index(kind) + 1 for kind in set(kinds))) if kinds else 2)
    if kinds:
        values["layer_types"] = kinds[:keep]
    for name in ("num_hidden_layers", "n_layer"):
        if name in values:
            values[name] = keep
    values["vocab_size"] = _TINY_VOCABULARY
    for name, limit in _LIMITS.items():
        if values.get(name):
            values[name] = min(int(values[name]), limit)
    values |= _small_heads(values)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        values[name] = 1
    if values.get("sliding_window"):
        values["sliding_window"] = _TINY_WINDOW
    values.pop("quantization_config", None)
    return type(config).from_dict(values)


def _small_heads(values: dict[str, Any]) -> dict[str, int]:
    """Two groups of heads at most, with the head size as it is."""
    heads, kv_heads = values.get("num_attention_heads"), values.get("num_key_value_heads")
    hidden = values.get("hidden_size")
    if not (heads and hidden):
        return {}
    head_dim = values.get("head_dim") or hidden // heads
    groups = heads // kv_heads if kv_heads else 1
    small_kv = min(kv_heads or heads, 2)
    small = {"num_attention_heads": small_kv * groups, "hidden_size": small_kv * groups * head_dim}
    return small | ({"num_key_value_heads": small_kv} if kv_heads else {})
