"""From measured figures to the tolerances of export/tolerances.py. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.deploy.results import ParityRow, RoundingRow
from llamafarm.export.file_types import FILE_TYPES, FileType, tensor_type
from llamafarm.export.tolerances import Tolerance

KL_FACTOR, MARGIN_FACTOR, CODES_FACTOR = 3, 2, 2
# What other arithmetic of an engine may add, on other processors than the one measured on.
LEAST_KL, LEAST_MARGIN, LEAST_CODES = 3e-5, 0.05, 0.01
# Where a log-probability moves by more, it is that of an unlikely token.
_LARGE_DIFFERENCE = 1.0


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst of all models, for one file type. rounding: the share of bytes of its worst tensor
    that differ where two merges round differently.
    """

    file_type: str
    mean_kl: float
    max_difference: float
    widest_disagreement: float
    rounding: float

    @property
    def allowed(self) -> Tolerance:
        """Mean KL: 3 times the worst. Margin: twice the largest difference of a log-probability,
        beyond which no first token can have changed places with a second; where that difference is
        large, itself or twice the widest margin that was lost. Codes: twice what rounding does.
        """
        if self.max_difference <= _LARGE_DIFFERENCE:
            margin = MARGIN_FACTOR * self.max_difference
        else:
            margin = max(MARGIN_FACTOR * self.widest_disagreement, self.max_difference)
        return Tolerance(
            rounded_up(max(KL_FACTOR * self.mean_kl, LEAST_KL)),
            rounded_up(max(margin, LEAST_MARGIN)),
            rounded_up(max(CODES_FACTOR * self.rounding, LEAST_CODES)),
        )


def worst_of(rows: Sequence[ParityRow], rounding: Sequence[RoundingRow]) -> list[Worst]:
    """One for each file type, in the order of the rows."""
    file_types = list(dict.fromkeys(row.file_type for row in rows))
    shares = {row.tensor_type: row.differing_codes for row in rounding}
    return [
        _worst(FILE_TYPES[name], [row for row in rows if row.file_type == name], shares)
        for name in file_types
    ]


def _worst(file_type: FileType, rows: Sequence[ParityRow], shares: Mapping[str, float]) -> Worst:
    return Worst(
        file_type.name,
        _highest(row.mean_kl for row in rows),
        _highest(row.max_difference for row in rows),
        _highest(row.widest_disagreement for row in rows),
        _highest(shares[name] for name in tensor_types(file_type)),
    )


def tensor_types(file_type: FileType) -> set[str]:
    """What the matrices of such a file may be stored as, K types' fall-backs among them.

    Vectors and norms stay float32 in every file, and no adapter changes them.
    """
    shapes = ((64, 256), (64, 288), (64, 100))
    names = ("token_embd.weight", "blk.0.attn_v.weight", "blk.1.attn_q.weight")
    return {
        tensor_type(file_type, name, shape, num_layers=8, tied=True)
        for name in names
        for shape in shapes
    }


def _highest(values: Iterable[float]) -> float:
    return max(values)


def rounded_up(value: float) -> float:
    """To two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(round(value / unit, 6)) * unit:.2g}")
