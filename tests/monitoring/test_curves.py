from __future__ import annotations

import math
from pathlib import Path

import pytest

from llamafarm.monitoring.curves import render_curves

GOLDEN = Path(__file__).parents[1] / "golden" / "monitoring"
TRAIN = [(step, 1.7 + 0.6 * math.exp(-step / 15) + 0.04 * (-1) ** step) for step in range(1, 58)]
EVALUATION = [(step, 1.84 + 0.4 * math.exp(-step / 12)) for step in range(0, 58, 6)]


@pytest.mark.parametrize(
    ("name", "ascii_only"), [("curves.txt", False), ("curves_ascii.txt", True)]
)
def test_curves_look_as_agreed(name: str, ascii_only: bool) -> None:
    drawn = render_curves(TRAIN, EVALUATION, width=60, height=8, ascii_only=ascii_only)
    assert drawn + "\n" == (GOLDEN / name).read_text(encoding="utf-8")


def test_ascii_curves_have_no_other_characters() -> None:
    assert render_curves(TRAIN, EVALUATION, ascii_only=True).isascii()


@pytest.mark.parametrize("width", [24, 40, 79, 100])
@pytest.mark.parametrize("height", [3, 8])
def test_curves_keep_to_their_size(width: int, height: int) -> None:
    lines = render_curves(TRAIN, EVALUATION, width=width, height=height).splitlines()
    assert len(lines) == height + 2
    assert max(len(line) for line in lines[:-1]) == width


def test_a_falling_loss_goes_down_to_the_right() -> None:
    lines = render_curves([], [(0, 3.0), (10, 2.0), (20, 1.0)], height=5).splitlines()[:5]
    places = [(row, line.index("◆")) for row, line in enumerate(lines) if "◆" in line]
    assert [row for row, _ in places] == [0, 2, 4]
    assert [column for _, column in places] == sorted(column for _, column in places)


def test_the_axis_shows_the_highest_and_the_lowest_loss() -> None:
    lines = render_curves([(1, 2.5), (5, 1.25)], [], height=5).splitlines()
    assert lines[0].startswith("  2.50 ┤")
    assert lines[4].startswith("  1.25 ┤")


def test_the_step_axis_may_end_where_the_run_will() -> None:
    lines = render_curves(TRAIN[:5], [], width=60, last_step=500).splitlines()
    assert lines[-1].endswith("step 500")
    assert all(len(line) < 12 for line in lines[:-2])


@pytest.mark.parametrize(
    "train", [[], [(1, 2.0)], [(1, math.nan), (2, math.inf)]], ids=["none", "one", "nonfinite"]
)
def test_what_makes_no_curve_draws_nothing(train: list[tuple[int, float]]) -> None:
    assert render_curves(train, []) == ""


def test_a_loss_that_never_moves_is_drawn_all_the_same() -> None:
    assert "◆" in render_curves([], [(0, 2.0), (1, 2.0)])


def test_nonfinite_points_do_not_disturb_the_others() -> None:
    assert render_curves([*TRAIN, (58, math.nan)], EVALUATION) == render_curves(TRAIN, EVALUATION)
