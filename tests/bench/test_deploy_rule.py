"""From measured figures to tolerances; and the tolerances in force are what that makes of the
newest results.
"""

from __future__ import annotations

import pytest
from bench.deploy.results import read_parts
from bench.deploy.rule import Worst, rounded_up, tensor_types, worst_of
from bench.environment import ROOT

from llamafarm.export.file_types import FILE_TYPES
from llamafarm.export.tolerances import TOLERANCES
from tests.bench.made_up_deploy import ROUNDING, parity_row


def test_the_worst_of_all_models_counts_each_figure_on_its_own() -> None:
    rows = [
        parity_row("One", mean_kl=0.01, max_difference=0.3),
        parity_row("Two", mean_kl=0.02, max_difference=0.2),
        parity_row("Two", "Q8_0", mean_kl=0.5),
    ]
    worst, other = worst_of(rows, ROUNDING)
    assert (worst.file_type, worst.mean_kl, worst.max_difference) == ("F16", 0.02, 0.3)
    assert (other.file_type, other.mean_kl) == ("Q8_0", 0.5)


def test_a_small_difference_is_doubled() -> None:
    assert Worst("F16", 0.01, 0.2, 0.05, 0.02).allowed.margin == 0.4


def test_of_a_large_difference_the_margin_that_was_lost_is_doubled() -> None:
    assert Worst("Q4_0", 0.01, 5.0, 3.0, 0.02).allowed.margin == 6.0
    assert Worst("Q4_0", 0.01, 5.0, 1.0, 0.02).allowed.margin == 5.0


def test_divergence_and_codes_have_their_factors_and_a_floor() -> None:
    allowed = Worst("F16", 0.01, 0.2, 0.05, 0.02).allowed
    assert (allowed.mean_kl, allowed.differing_codes) == (0.03, 0.04)
    least = Worst("F32", 0.0, 0.0, 0.0, 0.0).allowed
    assert (least.mean_kl, least.margin, least.differing_codes) == (3e-5, 0.05, 0.01)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.1211, 0.13), (0.12, 0.12), (3e-5, 3e-5), (11.5, 12.0), (0.996, 1.0)]
)
def test_limits_are_rounded_up_never_down(value: float, expected: float) -> None:
    assert rounded_up(value) == expected


def test_rounding_counts_for_every_type_that_a_file_may_hold() -> None:
    assert tensor_types(FILE_TYPES["F32"]) == {"F32"}
    assert {"Q4_K", "Q6_K", "Q5_0", "Q8_0"} <= tensor_types(FILE_TYPES["Q4_K_M"])


def test_the_tolerances_in_force_come_from_the_newest_results() -> None:
    newest = max((ROOT / "bench" / "results").glob("*-deploy.json"))
    parts = read_parts(newest)
    worst = worst_of(parts["parity"].rows, parts["rounding"].rows)
    assert {w.file_type: w.allowed for w in worst} == dict(TOLERANCES)
    assert TOLERANCES.keys() == FILE_TYPES.keys()
