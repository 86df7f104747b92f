"""Llama, SmolLM2 and Mistral: llama.cpp's `llama`, which turns neighbouring values of a head."""

from __future__ import annotations

from functools import partial

from llamafarm.export.architectures.config import Config, Dimensions
from llamafarm.export.architectures.design import (
    Architecture,
    Design,
    Weight,
    biases,
    context_within_window,
    gated_feed_forward,
    norms,
    option_problems,
    separate_attention,
)
from llamafarm.export.architectures.rope import read_rope, rope_problems
from llamafarm.export.contents import Floats

_ROPE_KINDS = ("default", "linear", "llama3", "yarn")
_ALLOWED: dict[str, tuple[object, ...]] = {"hidden_act": ("silu", "swish")}


def interleave_halves(rows: Floats, head_dim: int) -> Floats:
    """transformers turns value i of a head with value i + head_dim / 2, llama.cpp with value i + 1.

    rows: [heads * head_dim, …], of a query or key projection or of its bias. Returns the rows in
    llama.cpp's order: 0, head_dim / 2, 1, head_dim / 2 + 1, … of each head.
    """
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _llama(config: Config) -> Design:
    return _design(
        config,
        attention_bias=config.flag("attention_bias"),
        feed_forward_bias=config.flag("mlp_bias"),
        window=None,
    )


def _mistral(config: Config) -> Design:
    window = config.value("sliding_window")
    return _design(
        config,
        attention_bias=False,
        feed_forward_bias=False,
        window=None if window is None else config.integer("sliding_window"),
    )


def _design(
    config: Config, *, attention_bias: bool, feed_forward_bias: bool, window: int | None
) -> Design:
    sizes = Dimensions.of(config)
    rope = read_rope(config, sizes.head_dim)
    attention = separate_attention(sizes, partial(interleave_halves, head_dim=sizes.head_dim))
    feed_forward = gated_feed_forward(sizes)
    block: tuple[Weight, ...] = (
        *norms(sizes.hidden, "input_layernorm", "post_attention_layernorm"),
        *attention,
        *feed_forward,
        *(biases(attention) if attention_bias else ()),
        *(biases(feed_forward) if feed_forward_bias else ()),
    )
    return Design(
        name="llama",
        dimensions=sizes,
        block=block,
        rope=rope,
        context_length=context_within_window(config, window),
        problems=(
            *option_problems(config, _ALLOWED),
            *rope_problems(rope, _ROPE_KINDS, sizes.head_dim),
        ),
    )


_SHARED_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
LLAMA = Architecture(
    _SHARED_DEFAULTS
    | {
        "intermediate_size": 11008,
        "num_key_value_heads": None,
        "max_position_embeddings": 2048,
        "attention_bias": False,
        "mlp_bias": False,
    },
    _llama,
)
MISTRAL = Architecture(
    _SHARED_DEFAULTS
    | {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    _mistral,
)
