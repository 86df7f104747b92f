"""The seed's table of evaluation shares: how many of all rows are kept to evaluate on."""

from __future__ import annotations

from collections.abc import Mapping

VERY_SMALL_DATASET = 50
VERY_SMALL_SHARE, STANDARD_SHARE = 0.05, 0.10
NAMED_SHARES: Mapping[str, float] = {"robust": 0.15, "research": 0.20}
AUTO = "auto"


def auto_share(rows: int) -> float:
    """The share of the rows to evaluate on, by their number."""
    return VERY_SMALL_SHARE if rows < VERY_SMALL_DATASET else STANDARD_SHARE
