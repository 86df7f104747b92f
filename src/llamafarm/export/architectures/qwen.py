"""Qwen2 (and Qwen2.5) with biases before the attention, Qwen3 with norms in it."""

from __future__ import annotations

from llamafarm.export.architectures.config import Config, Dimensions
from llamafarm.export.architectures.design import (
    Architecture,
    Design,
    biases,
    context_within_window,
    gated_feed_forward,
    norms,
    option_problems,
    separate_attention,
    split_head_problems,
)
from llamafarm.export.architectures.rope import read_rope, rope_problems

_ROPE_KINDS = ("default", "linear", "yarn")
_ALLOWED: dict[str, tuple[object, ...]] = {"hidden_act": ("silu", "swish")}
_QWEN3_ALLOWED: dict[str, tuple[object, ...]] = {**_ALLOWED, "attention_bias": (False, None)}


def _qwen2(config: Config) -> Design:
    sizes = Dimensions.of(config)
    rope = read_rope(config, sizes.head_dim)
    attention = separate_attention(sizes)
    return Design(
        name="qwen2",
        dimensions=sizes,
        block=(
            *norms(sizes.hidden, "input_layernorm", "post_attention_layernorm"),
            *attention,
            *biases(attention[:3]),
            *gated_feed_forward(sizes),
        ),
        rope=rope,
        context_length=context_within_window(config, _window(config, sizes.layers)),
        problems=(
            *option_problems(config, _ALLOWED),
            *split_head_problems(sizes),
            *rope_problems(rope, _ROPE_KINDS, sizes.head_dim),
        ),
    )


def _qwen3(config: Config) -> Design:
    sizes = Dimensions.of(config)
    rope = read_rope(config, sizes.head_dim)
    return Design(
        name="qwen3",
        dimensions=sizes,
        block=(
            *norms(sizes.hidden, "input_layernorm", "post_attention_layernorm"),
            *norms(sizes.head_dim, "self_attn.q_norm", "self_attn.k_norm"),
            *separate_attention(sizes),
            *gated_feed_forward(sizes),
        ),
        rope=rope,
        context_length=context_within_window(config, _window(config, sizes.layers)),
        problems=(
            *option_problems(config, _QWEN3_ALLOWED),
            *rope_problems(rope, _ROPE_KINDS, sizes.head_dim),
        ),
    )


def _window(config: Config, layers: int) -> int | None:
    """The sliding window of the layers that have one."""
    if not config.flag("use_sliding_window") or config.value("sliding_window") is None:
        return None
    kinds = config.value("layer_types")
    if kinds is None:
        some = config.value("max_window_layers") < layers
    else:
        some = "sliding_attention" in kinds
    return config.integer("sliding_window") if some else None


_SHARED_DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
QWEN2 = Architecture(_SHARED_DEFAULTS | {"head_dim": None}, _qwen2)
QWEN3 = Architecture(_SHARED_DEFAULTS | {"head_dim": 128, "attention_bias": False}, _qwen3)
