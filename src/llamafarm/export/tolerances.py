"""How far a file of each type may be from the trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """mean_kl: highest mean divergence, in nats; margin: where the trained model's first token is
    this far ahead of its second (in log-probability), the file must name the same token;
    differing_codes: highest share of a tensor's encoded bytes that may differ from those of the
    trained weights (a value on the edge between two codes may fall to either side).
    """

    mean_kl: float
    margin: float
    differing_codes: float


TOLERANCES: Mapping[str, Tolerance] = {
    "F32": Tolerance(1e-4, 0.05, 0.01),
    "F16": Tolerance(1e-3, 0.2, 0.01),
    "BF16": Tolerance(1e-2, 0.5, 0.01),
    "Q8_0": Tolerance(3e-2, 3.0, 0.01),
}


def tolerance_of(file_type: str) -> Tolerance:
    """By the name of the type. Raises KeyError for a type that has none."""
    return TOLERANCES[file_type]
