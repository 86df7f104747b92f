from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llamafarm.hardware.facts import Accelerator
from llamafarm.monitoring.jsonable import to_jsonable


def test_nested_values_become_json() -> None:
    card = Accelerator("cuda", "cuda:0", "A10", 2, 1, True, True, True, (8, 6))
    value = {"cards": (card,), "path": Path("a") / "b", "loss": math.nan, 3: frozenset({"x"})}
    written = json.loads(json.dumps(to_jsonable(value), allow_nan=False))
    assert written["cards"][0]["compute_capability"] == [8, 6]
    assert (written["path"], written["loss"], written["3"]) == ("a/b", None, ["x"])


def test_what_json_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="complex"):
        to_jsonable({"a": 1j})


def test_a_time_is_text() -> None:
    assert to_jsonable(datetime(2026, 1, 2, 3, tzinfo=UTC)) == "2026-01-02T03:00:00+00:00"
