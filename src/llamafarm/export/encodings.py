"""Float32 rows as the bytes of a GGUF tensor: the range checked, then the encoder of the type.

numpy makes the simple types (block_encoders), an engine the K types (k_quants).
"""

from __future__ import annotations

import math

import numpy as np

from llamafarm.errors import ModelError
from llamafarm.export.block_encoders import ENCODERS
from llamafarm.export.contents import Floats
from llamafarm.export.ggml_types import Bytes, block_of, decode, encoded_nbytes
from llamafarm.export.k_quants import K_TYPES, encode_k_rows

__all__ = ["decode", "encode", "encoded_nbytes"]

# Values at once: 256 KiB, so that what one step writes is still in the core's cache for the next.
_PART = 1 << 16
# The least numbers that float16 and bfloat16 round to infinity.
_F16_OVERFLOW, _BF16_OVERFLOW = 65520.0, 2.0**128 - 2.0**119
# A type holds magnitudes below this. Types of blocks: where the scale, or the least value, would
# overflow; K types: half of where the scale of the offsets does, which counts in 63rds.
_LIMITS = {
    "F32": math.inf,
    "F16": _F16_OVERFLOW,
    "BF16": _BF16_OVERFLOW,
    "Q8_0": _F16_OVERFLOW * 127,
    "Q4_0": _F16_OVERFLOW * 8,
    "Q5_0": _F16_OVERFLOW * 16,
    "Q4_1": _F16_OVERFLOW,
    "Q5_1": _F16_OVERFLOW,
    **dict.fromkeys(K_TYPES, _F16_OVERFLOW * 32),
}


def encode(rows: Floats, type_name: str, *, tensor: str) -> Bytes:
    """Bytes of float32 rows [n, k], row after row, encoded_nbytes of them. tensor: its name.

    Safe to call from several threads at once; rows may be any view. Raises ModelError where a value
    is not finite or too large for the type, UserError and RunError where an engine is missing or
    fails (k_quants), ValueError where k is no whole number of blocks.
    """
    nbytes = encoded_nbytes(rows.shape, type_name)
    rows = np.ascontiguousarray(rows, np.float32)
    if type_name in K_TYPES:
        _check_range(rows, type_name, tensor)
        return encode_k_rows(rows, type_name, tensor=tensor)
    return _encode_in_parts(rows.reshape(-1), type_name, tensor, nbytes)


def _encode_in_parts(values: Floats, type_name: str, tensor: str, nbytes: int) -> Bytes:
    block_values, block_bytes = block_of(type_name)
    out = np.empty(nbytes, np.uint8)
    for start in range(0, values.size, _PART):
        part = values[start : start + _PART]
        _check_range(part, type_name, tensor)
        first, count = start // block_values, part.size // block_values
        ENCODERS[type_name](part, out[first * block_bytes :][: count * block_bytes])
    return out


def _check_range(values: Floats, type_name: str, tensor: str) -> None:
    # Both are NaN where any value is.
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ModelError(
            f"tensor {tensor} holds values that are not finite (NaN or infinity)",
            hint="the weights are damaged, or the training diverged: export another checkpoint",
        )
    largest, limit = max(-low, high), _LIMITS[type_name]
    if largest >= limit:
        raise ModelError(
            f"tensor {tensor} holds a value of magnitude {largest:.6g}; {type_name} holds less "
            f"than {limit:.6g}",
            hint=f"choose {'F32' if type_name == 'BF16' else 'BF16 or F32'} as the file type",
        )
