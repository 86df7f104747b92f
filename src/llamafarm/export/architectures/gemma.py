"""Gemma 2 and Gemma 3: layers with a sliding window between full ones, norms around each part.

The norms of transformers multiply by 1 + weight, those of llama.cpp by the weight. The embedding's
factor, the order of the layers and the scale of the queries are fixed in llama.cpp's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llamafarm.errors import Problem
from llamafarm.export.architectures.config import Config, Dimensions
from llamafarm.export.architectures.design import (
    Architecture,
    Design,
    Weight,
    gated_feed_forward,
    norms,
    option_problems,
    separate_attention,
)
from llamafarm.export.architectures.rope import DEFAULT_THETA, read_rope, rope_of, rope_problems
from llamafarm.export.contents import Floats, Metadatum

_ROPE_KINDS = ("default", "linear")
_GEMMA3_THETA = 1_000_000.0
_SLIDING, _FULL = "sliding_attention", "full_attention"
# One layer in so many is a full one, the last of each group.
_GEMMA2_PATTERN, _GEMMA3_PATTERN = 2, 6
# The largest model of each generation scales its queries by hidden_size / heads; llama.cpp knows it
# by its layers.
_GEMMA2_LARGEST, _GEMMA3_LARGEST = 46, 62
_ALLOWED: dict[str, tuple[object, ...]] = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False, None),
    "use_bidirectional_attention": (False, None),
}
_GEMMA2_ALLOWED: dict[str, tuple[object, ...]] = {**_ALLOWED, "tie_word_embeddings": (True,)}
_GEMMA3_ALLOWED: dict[str, tuple[object, ...]] = {
    **_ALLOWED,
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
}


def one_more(rows: Floats) -> Floats:
    """The factor of a norm: 1 + weight."""
    return rows + np.float32(1.0)


def _gemma2(config: Config) -> Design:
    from gguf.constants import Keys

    sizes = Dimensions.of(config)
    rope = read_rope(config, sizes.head_dim)
    caps = {
        Keys.LLM.ATTN_LOGIT_SOFTCAPPING: config.number("attn_logit_softcapping"),
        Keys.LLM.FINAL_LOGIT_SOFTCAPPING: config.number("final_logit_softcapping"),
    }
    return Design(
        name="gemma2",
        dimensions=sizes,
        block=_block(sizes),
        rope=rope,
        context_length=config.integer("max_position_embeddings"),
        norm_transform=one_more,
        metadata=(
            _window(config),
            *(Metadatum(key, cap, "float32") for key, cap in caps.items()),
        ),
        problems=(
            *option_problems(config, _GEMMA2_ALLOWED),
            *_query_problems(config, sizes, _GEMMA2_LARGEST),
            *_layer_problems(config, sizes.layers, _GEMMA2_PATTERN, _GEMMA2_PATTERN),
            *rope_problems(rope, _ROPE_KINDS, sizes.head_dim),
        ),
    )


def _gemma3(config: Config) -> Design:
    from gguf.constants import Keys

    sizes = Dimensions.of(config)
    full = rope_of(config, _gemma3_rope(config, _FULL), sizes.head_dim)
    sliding = rope_of(config, _gemma3_rope(config, _SLIDING), sizes.head_dim)
    pattern = config.integer("sliding_window_pattern")
    return Design(
        name="gemma3",
        dimensions=sizes,
        block=(
            *_block(sizes),
            *norms(sizes.head_dim, "self_attn.q_norm", "self_attn.k_norm", transform=one_more),
        ),
        rope=full,
        context_length=config.integer("max_position_embeddings"),
        norm_transform=one_more,
        metadata=(
            _window(config),
            Metadatum(Keys.Rope.FREQ_BASE_SWA, sliding.theta, "float32"),
        ),
        problems=(
            *option_problems(config, _GEMMA3_ALLOWED),
            *_query_problems(config, sizes, _GEMMA3_LARGEST),
            *_layer_problems(config, sizes.layers, pattern, _GEMMA3_PATTERN),
            *rope_problems(full, _ROPE_KINDS, sizes.head_dim),
            *rope_problems(sliding, ("default",), sizes.head_dim),
        ),
    )


def _block(sizes: Dimensions) -> tuple[Weight, ...]:
    around = (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    )
    return (
        *norms(sizes.hidden, *around, transform=one_more),
        *separate_attention(sizes),
        *gated_feed_forward(sizes),
    )


def _gemma3_rope(config: Config, kind: str) -> Mapping[str, Any]:
    """The parameters of the layers of a kind. Hub files have two bases and one scaling, which is of
    the full layers.
    """
    nested = (config.values.get("rope_parameters") or {}).get(kind) or {}
    if kind == _SLIDING:
        return {"rope_theta": config.values.get("rope_local_base_freq", DEFAULT_THETA), **nested}
    theta = config.values.get("rope_theta", _GEMMA3_THETA)
    return {"rope_theta": theta, **nested, **(config.values.get("rope_scaling") or {})}


def _window(config: Config) -> Metadatum:
    from gguf.constants import Keys

    return Metadatum(Keys.Attention.SLIDING_WINDOW, config.integer("sliding_window"), "uint32")


def _query_problems(config: Config, sizes: Dimensions, largest: int) -> tuple[Problem, ...]:
    shared = sizes.hidden // sizes.heads if sizes.layers == largest else sizes.head_dim
    return option_problems(config, {"query_pre_attn_scalar": (shared,)})


def _layer_problems(config: Config, layers: int, pattern: int, fixed: int) -> tuple[Problem, ...]:
    """pattern: where config.json does not list the layers; fixed: llama.cpp's."""
    kinds = config.value("layer_types")
    if kinds is None:
        kinds = _layer_types(layers, pattern)
    if kinds == _layer_types(layers, fixed):
        return ()
    message = (
        f"is {kinds!r}; in a GGUF file of this architecture one layer in {fixed} is a {_FULL} "
        f"layer, the last of each group, and the others are {_SLIDING} layers"
    )
    return (Problem(message, path="layer_types"),)


def _layer_types(layers: int, pattern: int) -> list[str]:
    return [_SLIDING if (number + 1) % pattern else _FULL for number in range(layers)]


_SHARED_DEFAULTS = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
}
GEMMA2 = Architecture(
    _SHARED_DEFAULTS
    | {
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "use_bidirectional_attention": None,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    _gemma2,
)
_GEMMA3_DEFAULTS = _SHARED_DEFAULTS | {
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "use_bidirectional_attention": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "sliding_window_pattern": _GEMMA3_PATTERN,
}
GEMMA3 = Architecture(_GEMMA3_DEFAULTS, _gemma3)
# Both spellings are about: transformers 4 put the language model outside, 5 inside.
GEMMA3_WITH_VISION = Architecture(
    _GEMMA3_DEFAULTS,
    _gemma3,
    prefixes=(
        ("model.language_model.", "model."),
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
    ),
    left_out=(
        "model.vision_tower.",
        "model.multi_modal_projector.",
        "vision_tower.",
        "multi_modal_projector.",
    ),
)
