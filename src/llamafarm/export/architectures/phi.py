"""Phi-3 and Phi-4: projections that are fused in both formats, and two sets of rotary factors.

transformers takes the long factors once a row is longer than the original context, llama.cpp when
it was started with a longer context.
"""

from __future__ import annotations

from dataclasses import replace

from llamafarm.errors import Problem
from llamafarm.export.architectures.config import Config, Dimensions
from llamafarm.export.architectures.design import (
    Architecture,
    Design,
    Weight,
    context_within_window,
    norms,
    option_problems,
    split_head_problems,
)
from llamafarm.export.architectures.rope import Rope, read_rope, rope_problems
from llamafarm.export.contents import Metadatum

_ROPE_KINDS = ("default", "longrope")
# transformers reads the names of Phi-3's first files so.
_OLD_LONGROPE = ("su", "yarn")
_ALLOWED: dict[str, tuple[object, ...]] = {"hidden_act": ("silu", "swish")}


def _phi3(config: Config) -> Design:
    from gguf.constants import Keys

    sizes = Dimensions.of(config)
    rope = read_rope(config, sizes.head_dim)
    if rope.kind in _OLD_LONGROPE:
        rope = replace(rope, kind="longrope")
    window = config.value("sliding_window")
    if window is not None:
        window = config.integer("sliding_window")
    return Design(
        name="phi3",
        dimensions=sizes,
        block=(
            *norms(sizes.hidden, "input_layernorm", "post_attention_layernorm"),
            *_fused_projections(sizes),
        ),
        rope=rope,
        context_length=context_within_window(config, window),
        # Zero, not absence, tells llama.cpp that there is none.
        metadata=(Metadatum(Keys.Attention.SLIDING_WINDOW, window or 0, "uint32"),),
        problems=(
            *option_problems(config, _ALLOWED),
            *split_head_problems(sizes),
            *rope_problems(rope, _ROPE_KINDS),
            *_factor_problems(rope),
        ),
    )


def _fused_projections(sizes: Dimensions) -> tuple[Weight, ...]:
    """Query, key and value one after the other; gate and up likewise."""
    heads = sizes.heads + 2 * sizes.kv_heads
    return (
        Weight("self_attn.qkv_proj.weight", (heads * sizes.head_dim, sizes.hidden)),
        Weight("self_attn.o_proj.weight", (sizes.hidden, sizes.heads * sizes.head_dim)),
        Weight("mlp.gate_up_proj.weight", (2 * sizes.feed_forward, sizes.hidden)),
        Weight("mlp.down_proj.weight", (sizes.hidden, sizes.feed_forward)),
    )


def _factor_problems(rope: Rope) -> tuple[Problem, ...]:
    if rope.kind != "longrope":
        return ()
    needed = rope.dimensions // 2
    counts = {key: len(rope.parameters.numbers(key)) for key in ("long_factor", "short_factor")}
    return tuple(
        Problem(
            f"has {count} numbers; the heads need {needed}",
            path=rope.parameters.path(key),
        )
        for key, count in counts.items()
        if count != needed
    )


PHI3 = Architecture(
    {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "sliding_window": None,
    },
    _phi3,
)
