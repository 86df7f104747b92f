"""What an architecture consists of: its tensors, its keys in the header, and what it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llamafarm.errors import Problem
from llamafarm.export.architectures.config import Config, Dimensions
from llamafarm.export.architectures.rope import Rope
from llamafarm.export.contents import Floats, Metadatum

Transform = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor that the model must have. name: in the Hugging Face model; of a tensor of a block,
    what follows `model.layers.N.`. The rest: as in TensorPlan.
    """

    name: str
    shape: tuple[int, ...]
    transform: Transform | None = None
    rows_together: int = 1


@dataclass(frozen=True, slots=True)
class Design:
    """One model as llamafarm and llama.cpp both understand it.

    name: llama.cpp's name of the architecture. block: the tensors of one block.
    norm_transform: for the last norm. context_length: up to this many tokens llama.cpp computes
    what transformers computes. metadata: keys beyond those of every architecture, with `{arch}` for
    the name. problems: what the GGUF file cannot express.
    """

    name: str
    dimensions: Dimensions
    block: tuple[Weight, ...]
    rope: Rope
    context_length: int
    norm_transform: Transform | None = None
    metadata: tuple[Metadatum, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model class of transformers.

    defaults: what its configuration class has for keys that config.json leaves out. prefixes: other
    spellings of the beginning of a tensor's name. left_out: beginnings of the names of tensors that
    are no part of the language model.
    """

    defaults: Mapping[str, Any]
    design: Callable[[Config], Design]
    prefixes: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()


def separate_attention(
    sizes: Dimensions, rotary_transform: Transform | None = None
) -> tuple[Weight, ...]:
    """Query, key, value and output projections; rotary_transform: for the rows of a query or key
    head.
    """
    rows, kv_rows = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    together = sizes.head_dim if rotary_transform else 1
    return (
        Weight("self_attn.q_proj.weight", (rows, sizes.hidden), rotary_transform, together),
        Weight("self_attn.k_proj.weight", (kv_rows, sizes.hidden), rotary_transform, together),
        Weight("self_attn.v_proj.weight", (kv_rows, sizes.hidden)),
        Weight("self_attn.o_proj.weight", (sizes.hidden, rows)),
    )


def gated_feed_forward(sizes: Dimensions) -> tuple[Weight, ...]:
    """Gate, up and down projections."""
    return (
        Weight("mlp.gate_proj.weight", (sizes.feed_forward, sizes.hidden)),
        Weight("mlp.up_proj.weight", (sizes.feed_forward, sizes.hidden)),
        Weight("mlp.down_proj.weight", (sizes.hidden, sizes.feed_forward)),
    )


def norms(width: int, *modules: str, transform: Transform | None = None) -> tuple[Weight, ...]:
    """A norm over `width` values for each module."""
    return tuple(Weight(f"{module}.weight", (width,), transform) for module in modules)


def biases(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """The bias of each projection: one value for each row of its weight, changed alike."""
    return tuple(
        replace(weight, name=weight.name.replace(".weight", ".bias"), shape=weight.shape[:1])
        for weight in weights
    )


def option_problems(
    config: Config, allowed: Mapping[str, tuple[object, ...]]
) -> tuple[Problem, ...]:
    """Options whose value llama.cpp's code of the architecture does not compute with."""
    return tuple(
        Problem(
            f"is {config.value(key)!r}; in a GGUF file of this architecture it can only be "
            + " or ".join(repr(value) for value in values),
            path=key,
        )
        for key, values in allowed.items()
        if config.value(key) not in values
    )


def split_head_problems(sizes: Dimensions) -> tuple[Problem, ...]:
    """For an architecture whose heads divide the hidden size in llama.cpp."""
    if sizes.heads * sizes.head_dim == sizes.hidden:
        return ()
    message = (
        f"is {sizes.head_dim}; in a GGUF file of this architecture it can only be hidden_size / "
        f"num_attention_heads ({sizes.hidden} / {sizes.heads})"
    )
    return (Problem(message, path="head_dim"),)


def context_within_window(config: Config, window: int | None) -> int:
    """The context for an engine that has no sliding window: within one window it makes no
    difference.

    window: in tokens, of the layers that have one; None where no layer has.
    """
    positions = config.integer("max_position_embeddings")
    return positions if window is None else min(positions, window)
