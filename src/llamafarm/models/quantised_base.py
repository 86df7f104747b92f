"""The base that a QLoRA run trained on, as plain numbers: quantised and dequantised again.

An adapter learns to mend what quantisation did to its base (arXiv 2305.14314, section 3), so the
trained model is that base with the adapter, not the base as it is stored. bitsandbytes' own
functions make it, block by block as it does when it loads a model.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llamafarm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

_BLOCK_SIZE = 64


def requantise_linear_layers(model: Any, quantization: Mapping[str, Any], dtype: str) -> None:
    """Replace every linear weight that bitsandbytes had held by what it had made of it.

    quantization: QuantizationPlan as the model's record keeps it; dtype: torch's name of the type
    that the base was loaded in. The head stays: bitsandbytes leaves it alone. Raises UserError
    where bitsandbytes is not installed.
    """
    import torch

    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            _replace(module, dequantised(module.weight.data, quantization, dtype))


def dequantised(weight: Tensor, quantization: Mapping[str, Any], dtype: str) -> Tensor:
    """What a weight [d_out, d_in] is worth after quantisation, in float32 on its own device."""
    import torch

    require_bitsandbytes()
    import bitsandbytes.functional as bnb

    loaded = weight.to(getattr(torch, dtype)).contiguous()
    if quantization["bits"] == 8:
        codes, scales, _ = bnb.int8_vectorwise_quant(loaded.to(torch.float16))
        rows: Tensor = codes.float() * scales.float()[:, None] / 127
        return rows
    codes, state = bnb.quantize_4bit(
        loaded,
        blocksize=_BLOCK_SIZE,
        compress_statistics=bool(quantization["double_quant"]),
        quant_type=str(quantization["quant_type"]),
    )
    values: Tensor = bnb.dequantize_4bit(codes, state).float()
    return values.reshape(weight.shape)


def require_bitsandbytes() -> None:
    """Raises UserError with what to type where it is missing."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "this model was trained on quantised weights, which need bitsandbytes",
            hint="pip install 'llamafarm[qlora]'",
        )


def _replace(module: nn.Linear, weight: Tensor) -> None:
    module.weight.data = weight.to(module.weight.dtype)
