"""The encoders that numpy is fast enough for: F32, F16, BF16 and the blocks of 32 values.

Byte for byte what `gguf.quants.quantize` makes, two to three times as fast. Formats: ggml's
ggml-common.h and quantize_row_*_ref in ggml-quants.c. A block stores a float16 scale and a small
integer, its level, for each value:

    Q8_0          value = scale x level                       level -127 ... 127
    Q4_0, Q5_0    value = scale x (level - 8), (level - 16)   level 0 ... 15, 0 ... 31
    Q4_1, Q5_1    value = scale x level + least               level 0 ... 15, 0 ... 31

Every encoder gets n values, contiguous and in the range of its type, n a multiple of the values in
a block, and the bytes to write to; the temporaries are as long as the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from llamafarm.export.contents import Floats
from llamafarm.export.ggml_types import Bytes

Encoder = Callable[[Floats, Bytes], None]
Blocks = npt.NDArray[np.void]

_BLOCK = 32
# The reciprocal of a float32 up to this overflows; as a float16 scale it is zero anyway.
_NO_RECIPROCAL = np.float32(2.0**-128)
# The float32 before 0.5: adding it and cutting off rounds halves away from zero. (Adding 0.5 would
# take 0.49999997 to 1.)
_ALMOST_HALF = np.nextafter(np.float32(0.5), np.float32(0))
_BIAS = 127  # of float32's exponent
_SIGN_BIT = np.uint32(1 << 31)
_SCALE, _LEAST = ("scale", "<f2"), ("least", "<f2")
_HIGH_BITS, _LOW_BITS = ("high", "u1", 4), ("low", "u1", 16)
_Q8_0 = np.dtype([_SCALE, ("levels", "i1", 32)])
_Q4_0 = np.dtype([_SCALE, _LOW_BITS])
_Q5_0 = np.dtype([_SCALE, _HIGH_BITS, _LOW_BITS])
_Q4_1 = np.dtype([_SCALE, _LEAST, _LOW_BITS])
_Q5_1 = np.dtype([_SCALE, _LEAST, _HIGH_BITS, _LOW_BITS])


def _f32(values: Floats, out: Bytes) -> None:
    out.view(np.float32)[:] = values


def _f16(values: Floats, out: Bytes) -> None:
    """To nearest, halves to even, as numpy's own cast, which takes 20 times as long for numbers
    below 2**-14 (float16's subnormal ones).

    Adding 2**(e + 13) to a magnitude of exponent e leaves ten bits for its fraction, rounded by the
    processor; then the low half of the sum is that fraction with its leading one, and the exponent
    13 bits above it.
    """
    bits = values.view(np.uint32)
    summed_bits = bits & np.uint32(0x7F800000)
    summed = summed_bits.view(np.float32)
    np.maximum(summed, np.float32(2.0**-14), out=summed)
    summed *= np.float32(2.0**13)
    summed += np.abs(values)
    halves = summed_bits >> np.uint32(13)
    halves += summed_bits
    halves -= np.uint32((_BIAS - 14 + 13) << 10)
    halves &= np.uint32(0x7FFF)
    halves |= (bits >> np.uint32(16)) & np.uint32(0x8000)
    out.view(np.uint16)[:] = halves


def _bf16(values: Floats, out: Bytes) -> None:
    """The upper half of each float32, rounded to nearest, halves to even."""
    bits = values.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    out.view(np.uint16)[:] = rounded


def _q8_0(values: Floats, out: Bytes) -> None:
    scaled = np.abs(values)
    scale: Floats = np.maximum.reduceat(scaled, _block_starts(values))
    scale /= np.float32(127)
    _scale_blocks(values, scale, out=scaled)
    offsets = values.view(np.uint32) & _SIGN_BIT
    offsets |= _ALMOST_HALF.view(np.uint32)
    scaled += offsets.view(np.float32)
    blocks = out.view(_Q8_0)
    blocks["scale"] = scale
    blocks["levels"] = scaled.reshape(-1, _BLOCK)


def _q4_0(values: Floats, out: Bytes) -> None:
    _around_zero(values, 8, out.view(_Q4_0))


def _q5_0(values: Floats, out: Bytes) -> None:
    _around_zero(values, 16, out.view(_Q5_0))


def _around_zero(values: Floats, half_levels: int, blocks: Blocks) -> None:
    """The value of the largest magnitude, the first of several, becomes level 0."""
    scaled = np.abs(values)
    largest = scaled.reshape(-1, _BLOCK).argmax(axis=1) + _block_starts(values)
    scale = values[largest] / np.float32(-half_levels)
    _scale_blocks(values, scale, out=scaled)
    scaled += np.float32(half_levels + 0.5)
    blocks["scale"] = scale
    _pack(scaled, 2 * half_levels - 1, blocks)


def _q4_1(values: Floats, out: Bytes) -> None:
    _above_least(values, 15, out.view(_Q4_1))


def _q5_1(values: Floats, out: Bytes) -> None:
    _above_least(values, 31, out.view(_Q5_1))


def _above_least(values: Floats, last_level: int, blocks: Blocks) -> None:
    """The least value becomes level 0, the greatest the last."""
    starts = _block_starts(values)
    least = np.minimum.reduceat(values, starts)
    scale: Floats = np.maximum.reduceat(values, starts) - least
    scale /= np.float32(last_level)
    scaled = (values.reshape(-1, _BLOCK) - least[:, None]).reshape(-1)
    _scale_blocks(scaled, scale, out=scaled)
    scaled += np.float32(0.5)
    blocks["scale"], blocks["least"] = scale, least
    _pack(scaled, last_level, blocks)


def _block_starts(values: Floats) -> npt.NDArray[np.intp]:
    return np.arange(0, values.size, _BLOCK)


def _scale_blocks(values: Floats, scale: Floats, *, out: Floats) -> None:
    """out = values / scale, through the reciprocal as ggml does; zeros where it has none."""
    reciprocal = np.zeros_like(scale)
    np.divide(np.float32(1), scale, out=reciprocal, where=np.abs(scale) > _NO_RECIPROCAL)
    np.multiply(values.reshape(-1, _BLOCK), reciprocal[:, None], out=out.reshape(-1, _BLOCK))


def _pack(scaled: Floats, last_level: int, blocks: Blocks) -> None:
    """Cut off to levels; their low four bits in pairs (i, i + 16), the fifth as a bit set."""
    levels = scaled.astype(np.uint8)
    np.minimum(levels, np.uint8(last_level), out=levels)
    if last_level > 15:
        blocks["high"] = np.packbits(levels > 15, bitorder="little").reshape(-1, 4)
        levels &= np.uint8(15)
    pairs = levels.reshape(-1, 2, 16)
    np.bitwise_or(pairs[:, 0], pairs[:, 1] << np.uint8(4), out=blocks["low"])


ENCODERS: Mapping[str, Encoder] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
}
