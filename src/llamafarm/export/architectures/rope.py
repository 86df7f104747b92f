"""Rotary position embeddings: read as transformers reads them, written as llama.cpp reads them.

transformers 5 writes `rope_parameters`; older versions wrote `rope_theta` and `rope_scaling`.
Formulas: transformers, modeling_rope_utils.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llamafarm.errors import Problem
from llamafarm.export.architectures.config import Config
from llamafarm.export.contents import Metadatum, TensorPlan

DEFAULT_THETA = 10000.0
_ORIGINAL = "original_max_position_embeddings"
_PARTIAL = "partial_rotary_factor"
# What llama.cpp computes with, whatever a file of these architectures says.
_YARN_FIXED = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}


@dataclass(frozen=True, slots=True)
class Rope:
    """How positions turn the values of a head. kind: the scaling, as transformers names it.
    dimensions: how many values of a head are turned. positions, original_positions: the longest
    context with the scaling, and before it.
    """

    kind: str
    theta: float
    dimensions: int
    positions: int
    original_positions: int
    parameters: Config


def read_rope(config: Config, head_dim: int) -> Rope:
    """The rotary embedding that all layers share. Raises ModelError for an unusable value."""
    raw = config.values.get("rope_scaling") or config.values.get("rope_parameters") or {}
    shared = {"rope_theta": DEFAULT_THETA, _PARTIAL: 1.0}
    shared |= {key: config.values[key] for key in shared if key in config.values}
    return rope_of(config, shared | raw, head_dim)


def rope_of(config: Config, raw: Mapping[str, Any], head_dim: int) -> Rope:
    """The rotary embedding with these parameters, of which rope_theta is one."""
    positions = config.integer("max_position_embeddings")
    parameters = Config(raw, {_ORIGINAL: positions, _PARTIAL: 1.0}, "rope_parameters")
    nested = any(isinstance(value, dict) for value in raw.values())
    kind = "one for each type of layer" if nested else raw.get("rope_type", raw.get("type"))
    # Phi-3 has the key outside, and that one counts.
    original = config if _ORIGINAL in config.defaults else parameters
    return Rope(
        kind=str(kind or "default"),
        theta=parameters.number("rope_theta"),
        dimensions=int(head_dim * parameters.number(_PARTIAL)),
        positions=positions,
        original_positions=original.integer(_ORIGINAL),
        parameters=parameters,
    )


def rope_problems(
    rope: Rope, kinds: tuple[str, ...], head_dim: int | None = None
) -> tuple[Problem, ...]:
    """What llama.cpp's code cannot do. kinds: the scalings that it can; head_dim: where it always
    turns whole heads.
    """
    found = []
    if rope.kind not in kinds:
        found.append(
            Problem(
                f"is {rope.kind!r}; in a GGUF file of this architecture it can only be "
                + " or ".join(repr(kind) for kind in kinds),
                path=rope.parameters.path("rope_type"),
            )
        )
    if rope.dimensions % 2 or head_dim not in (None, rope.dimensions):
        found.append(
            Problem(
                f"turns {rope.dimensions} values of a head; in a GGUF file of this architecture it "
                + ("has to be an even number" if head_dim is None else f"can only be {head_dim}"),
                path=rope.parameters.path(_PARTIAL),
            )
        )
    if rope.kind == "yarn":
        found += _yarn_problems(rope.parameters)
    return tuple(found)


def rope_metadata(rope: Rope) -> tuple[Metadatum, ...]:
    """Keys with `{arch}` for the name of the architecture."""
    from gguf.constants import Keys, RopeScalingType

    data = [
        Metadatum(Keys.Rope.DIMENSION_COUNT, rope.dimensions, "uint32"),
        Metadatum(Keys.Rope.FREQ_BASE, rope.theta, "float32"),
    ]
    if rope.kind == "linear":
        data += [
            Metadatum(Keys.Rope.SCALING_TYPE, RopeScalingType.LINEAR.value, "string"),
            Metadatum(Keys.Rope.SCALING_FACTOR, rope.parameters.number("factor"), "float32"),
        ]
    if rope.kind == "yarn":
        data += _yarn_metadata(rope)
    if rope.kind == "longrope":
        data += [
            Metadatum(Keys.Rope.SCALING_ORIG_CTX_LEN, rope.original_positions, "uint32"),
            Metadatum(Keys.Rope.SCALING_ATTN_FACTOR, _longrope_attention(rope), "float32"),
        ]
    return tuple(data)


def rope_tensors(rope: Rope) -> tuple[TensorPlan, ...]:
    """Factors that divide the frequencies, where the scaling has some."""
    from gguf.constants import MODEL_TENSOR, TENSOR_NAMES

    if rope.kind == "llama3":
        factors = {MODEL_TENSOR.ROPE_FREQS: _llama3_factors(rope)}
    elif rope.kind == "longrope":
        factors = {
            MODEL_TENSOR.ROPE_FACTORS_LONG: rope.parameters.numbers("long_factor"),
            MODEL_TENSOR.ROPE_FACTORS_SHORT: rope.parameters.numbers("short_factor"),
        }
    else:
        return ()
    return tuple(
        TensorPlan(
            name=f"{TENSOR_NAMES[tensor]}.weight",
            shape=(len(values),),
            values=np.array(values, np.float32),
        )
        for tensor, values in factors.items()
    )


def _yarn_problems(parameters: Config) -> list[Problem]:
    given = {key: parameters.values.get(key) for key in _YARN_FIXED}
    return [
        Problem(
            f"is {value!r}; llama.cpp computes with {_YARN_FIXED[key]!r}",
            path=parameters.path(key),
        )
        for key, value in given.items()
        if value not in (None, _YARN_FIXED[key])
    ]


def _yarn_metadata(rope: Rope) -> list[Metadatum]:
    """llama.cpp multiplies by `0.1 ln(factor) + 1` itself; its key is what comes on top."""
    from gguf.constants import Keys, RopeScalingType

    factor = _factor(rope)
    data = [
        Metadatum(Keys.Rope.SCALING_TYPE, RopeScalingType.YARN.value, "string"),
        Metadatum(Keys.Rope.SCALING_FACTOR, factor, "float32"),
        Metadatum(Keys.Rope.SCALING_ORIG_CTX_LEN, rope.original_positions, "uint32"),
    ]
    on_top = _yarn_attention(rope, factor) / _yarn_scale(factor)
    if not math.isclose(on_top, 1.0, rel_tol=1e-6):
        data.append(Metadatum(Keys.Rope.SCALING_ATTN_FACTOR, on_top, "float32"))
    return data


def _factor(rope: Rope) -> float:
    if rope.parameters.values.get("factor") is None:
        return rope.positions / rope.original_positions
    return rope.parameters.number("factor")


def _yarn_attention(rope: Rope, factor: float) -> float:
    given = rope.parameters.values
    if given.get("attention_factor") is not None:
        return rope.parameters.number("attention_factor")
    if given.get("mscale") and given.get("mscale_all_dim"):
        above = _yarn_scale(factor, rope.parameters.number("mscale"))
        return above / _yarn_scale(factor, rope.parameters.number("mscale_all_dim"))
    return _yarn_scale(factor)


def _yarn_scale(factor: float, multiplier: float = 1.0) -> float:
    return 1.0 if factor <= 1.0 else 0.1 * multiplier * math.log(factor) + 1.0


def _longrope_attention(rope: Rope) -> float:
    if rope.parameters.values.get("attention_factor") is not None:
        return rope.parameters.number("attention_factor")
    factor = _factor(rope)
    if factor <= 1.0:
        return 1.0
    return math.sqrt(1.0 + math.log(factor) / math.log(rope.original_positions))


def _llama3_factors(rope: Rope) -> tuple[float, ...]:
    """Long waves are stretched by the factor, short ones not, those between in part."""
    parameters = rope.parameters
    factor = parameters.number("factor")
    low, high = parameters.number("low_freq_factor"), parameters.number("high_freq_factor")
    exponents = np.arange(0, rope.dimensions, 2) / rope.dimensions
    waves_in_context = rope.original_positions / (2 * math.pi * rope.theta**exponents)
    short_share = np.clip((waves_in_context - low) / (high - low), 0.0, 1.0)
    return tuple(1.0 / ((1.0 - short_share) / factor + short_share))
