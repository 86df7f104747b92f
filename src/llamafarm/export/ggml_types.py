"""ggml's tensor types by name: sizes of their blocks, and gguf's decoder as the reference.

A row is stored as whole blocks, so its length is a multiple of the values in a block.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from llamafarm.export.contents import Floats

Bytes = npt.NDArray[np.uint8]


def block_of(type_name: str) -> tuple[int, int]:
    """Values in a block and bytes of a block, e.g. (32, 34) for Q8_0 and (1, 2) for F16."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    return int(values), int(size)


def type_number(type_name: str) -> int:
    """The number that stands for a type in a GGUF file and in ggml, e.g. 8 for Q8_0."""
    from gguf.constants import GGMLQuantizationType

    return int(GGMLQuantizationType[type_name])


def type_name_of(number: int) -> str:
    """The name of a type by its number in a file. Raises ValueError for an unknown number."""
    from gguf.constants import GGMLQuantizationType

    return str(GGMLQuantizationType(number).name)


def encoded_nbytes(shape: tuple[int, ...], type_name: str) -> int:
    """Bytes of a tensor of this shape (torch's order) in this type.

    Raises ValueError where the rows are no multiple of a block: file_types.tensor_type chooses no
    such type.
    """
    values, size = block_of(type_name)
    if shape[-1] % values:
        raise ValueError(f"rows of {shape[-1]} values are no whole blocks of {type_name}: {values}")
    return math.prod(shape) // values * size


def decode(data: Bytes, type_name: str, shape: tuple[int, ...]) -> Floats:
    """What an engine reads from encoded bytes: float32 of this shape, by the `gguf` package."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    # As one long row: the package works on 16 rows at a time, however short they are.
    values: Floats = dequantize(data.reshape(1, -1), GGMLQuantizationType[type_name])
    return values.reshape(shape)
