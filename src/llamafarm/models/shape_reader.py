"""A model's shape, read from its configuration: the model is built on torch's meta device, without
weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamafarm.errors import ModelError
from llamafarm.models.config import load_config
from llamafarm.models.faults import model_faults
from llamafarm.models.quiet import quiet_transformers
from llamafarm.models.shape import LinearLayer, ModelShape, OtherModule

# For models whose configuration sets no limit (ALiBi positions): what they were commonly trained
# on.
_CONTEXT_WHEN_UNSTATED = 2048


def read_shape(directory: Path) -> ModelShape:
    """The shape of the model in a Hugging Face directory; weights are not read.

    Raises ModelError as load_config does, and when the configuration contradicts itself.
    """
    config = load_config(directory)
    model = _on_meta_device(config, directory)
    text = config.get_text_config(decoder=True)
    if not hasattr(text, "num_attention_heads"):
        raise ModelError(
            f"{directory} is a {config.model_type} model, which has no attention; only "
            "transformers are trained here",
            hint="take a Llama, Qwen, Mistral, Gemma or SmolLM model",
        )
    hidden, heads = int(text.hidden_size), int(text.num_attention_heads)
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    linear_layers = _linear_layers(model, head)
    return ModelShape(
        architecture=type(model).__name__,
        model_type=config.model_type,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_layers=int(text.num_hidden_layers),
        hidden_size=hidden,
        intermediate_size=_first(
            text, ("intermediate_size", "n_inner", "ffn_hidden_size"), 4 * hidden
        ),
        num_attention_heads=heads,
        num_key_value_heads=_first(text, ("num_key_value_heads",), heads),
        head_dim=_first(text, ("head_dim",), hidden // heads),
        vocab_size=int(text.vocab_size),
        max_position_embeddings=_first(
            text, ("max_position_embeddings", "max_seq_len", "seq_length"), _CONTEXT_WHEN_UNSTATED
        ),
        tied_embeddings=head is not None and head.weight is embeddings.weight,
        linear_layers=linear_layers,
        other_modules=_other_modules(model, linear_layers),
    )


def _on_meta_device(config: Any, directory: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    summary = f"{directory / 'config.json'} does not describe a model that can be built"
    hint = "download the model again, or take another one"
    with model_faults(summary, hint=hint), quiet_transformers(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _linear_layers(model: Any, head: Any) -> tuple[LinearLayer, ...]:
    """Linear weights of the language model: no head, no vision or audio tower, no projector between
    them.
    """
    decoder = model.get_decoder()
    if decoder is head:
        # ModernBERT's decoder calls its head `decoder`.
        decoder = model.base_model
    inside = {id(module) for module in decoder.modules()}
    return tuple(
        LinearLayer(name, *_linear_shape(module))
        for name, module in model.named_modules()
        if id(module) in inside and module is not head and _is_linear(module)
    )


def _other_modules(model: Any, linear: tuple[LinearLayer, ...]) -> tuple[OtherModule, ...]:
    """Everything else that holds parameters: embeddings, norms, the head."""
    names = {layer.name for layer in linear}
    sizes = (
        (name, sum(parameter.numel() for parameter in module.parameters(recurse=False)))
        for name, module in model.named_modules()
        if name not in names
    )
    return tuple(OtherModule(name, size) for name, size in sizes if size)


def _is_linear(module: Any) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _linear_shape(module: Any) -> tuple[int, int]:
    """(d_out, d_in). GPT-2's Conv1D stores its weight the other way round."""
    from torch import nn

    rows, columns = module.weight.shape
    return (rows, columns) if isinstance(module, nn.Linear) else (columns, rows)


def _first(config: Any, names: tuple[str, ...], fallback: int) -> int:
    """The first of these fields that is set."""
    values = (getattr(config, name, None) for name in names)
    return next(
        (int(value) for value in values if isinstance(value, int | float) and value), fallback
    )
