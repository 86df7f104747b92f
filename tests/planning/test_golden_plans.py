"""What a person is shown for known strategies on known machines."""

from __future__ import annotations

import pytest

from llamafarm.planning.render import render_decisions
from tests.planning.golden_plans import GOLDEN, plans

PLANS = plans()


@pytest.mark.parametrize("name", PLANS)
def test_the_decisions_are_those_that_were_kept(name: str) -> None:
    kept = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    assert render_decisions(PLANS[name].decisions) + "\n" == kept


def test_no_kept_text_is_without_its_plan() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(PLANS)
