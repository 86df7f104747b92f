"""How many bytes of a file differ where two merges only round differently.

PEFT's merge and ours sum the products of an adapter in an order that BLAS chooses: on some
machines, or at some ranks, not in the same one. The file is still the trained model's.
"""

from __future__ import annotations

import numpy as np

from bench.deploy.results import RoundingRow
from llamafarm.export.encodings import encode
from llamafarm.export.file_types import FILE_TYPES

RANK = 256
_ROWS, _COLUMNS = 576, 1536


def measure_rounding() -> list[RoundingRow]:
    """Every tensor type: a merge in float32 against the same in float64, rounded at the end."""
    random = np.random.default_rng(0)
    b = random.normal(0, 0.02, (_ROWS, RANK)).astype(np.float32)
    a = random.normal(0, 0.05, (RANK, _COLUMNS)).astype(np.float32)
    weight = random.normal(0, 0.05, (_ROWS, _COLUMNS)).astype(np.float32)
    single = weight + 2 * (b @ a)
    double = (weight + 2 * (b.astype(np.float64) @ a)).astype(np.float32)
    rows = []
    for name in dict.fromkeys(file_type.tensor_type for file_type in FILE_TYPES.values()):
        differs = encode(single, name, tensor="w") != encode(double, name, tensor="w")
        rows.append(RoundingRow(name, float(np.mean(differs))))
    return rows
