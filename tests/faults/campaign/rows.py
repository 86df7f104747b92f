"""All rows of the table, in its order."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from tests.faults.campaign.row import Row

_PACKAGE = "tests.faults.campaign"
# The key of a row and the module that has it as ROW. A module is imported when its row is asked
# for: some bring torch with them.
MODULES: Mapping[str, str] = {
    "kills": "kills",
    "crash": "crash_points",
    "signals": "signals",
    "disk": "disk",
    "corruption": "corruption",
    "grid": "grid",
    "nonfinite": "numbers",
    "oom": "oom",
    "fuzz": "fuzz",
    "hostile": "hostile",
    "lock": "lock",
    "soak": "soak",
}


def load_row(key: str) -> Row:
    """The row of a key of MODULES."""
    row: Row = importlib.import_module(f"{_PACKAGE}.{MODULES[key]}").ROW
    assert row.key == key, f"{MODULES[key]}.py calls its row {row.key}"
    return row
