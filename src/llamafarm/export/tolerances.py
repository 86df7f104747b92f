"""How far a file of each type may be from the trained model.

Measured by `python -m bench.deploy rounding parity` on 2026-11-25 (docs/benchmarks-deploy.md): the
worst of SmolLM2-135M with an adapter trained for it, and random models of seven architectures, over
250 positions or more each. KL: mean divergence; d: largest difference of a log-probability; w:
widest margin at which a faithful file named another token; r: share of a tensor's bytes that differ
where two merges only round differently.

              KL         d         w         r
    F32       2.2e-07    0.0019    0         20 %
    F16       8.2e-06    0.033     0.0098    0.04 %
    BF16      0.00037    0.26      0.036     0.01 %
    Q8_0      0.0040     0.72      0.54      0.04 %
    Q4_0      0.26       5.4       2.6       0.04 %
    Q4_1      0.50       12        3.5       0.04 %
    Q5_0      0.055      3.0       1.0       0.04 %
    Q5_1      0.10       3.6       1.4       0.04 %
    Q4_K_M    0.044      3.7       2.5       0.08 %
    Q5_K_M    0.062      2.8       1.5       0.93 %
    Q6_K      0.0085     2.0       0.87      0.08 %

The rule (bench/deploy/rule.py; a test compares): mean KL 3 KL; margin 2 d, and where d exceeds 1
the larger of 2 w and d; codes 2 r; none below 3e-5, 0.05 and 1 %, which leave room for the
arithmetic of other processors.
"""

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
    "F32": Tolerance(3e-5, 0.05, 0.41),
    "F16": Tolerance(3e-5, 0.066, 0.01),
    "BF16": Tolerance(1.2e-3, 0.52, 0.01),
    "Q8_0": Tolerance(1.2e-2, 1.5, 0.01),
    "Q4_0": Tolerance(0.80, 5.5, 0.01),
    "Q4_1": Tolerance(1.6, 12.0, 0.01),
    "Q5_0": Tolerance(0.17, 3.0, 0.01),
    "Q5_1": Tolerance(0.31, 3.6, 0.01),
    "Q4_K_M": Tolerance(0.14, 5.0, 0.01),
    "Q5_K_M": Tolerance(0.19, 3.1, 0.019),
    "Q6_K": Tolerance(2.6e-2, 2.1, 0.01),
}


def tolerance_of(file_type: str) -> Tolerance:
    """By the name of the type. Raises KeyError for a type that has none."""
    return TOLERANCES[file_type]
