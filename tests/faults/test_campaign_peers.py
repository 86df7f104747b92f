"""The driver of the other tools does its faults, and its judgement can be both yes and no."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from .campaign import side_by_side
from .campaign.peer_runs.faults import steps_in
from .campaign.peer_runs.tools import Point, Scene, make_tools
from .campaign.peers import (
    STEPS,
    Bench,
    Outcome,
    PeerLine,
    PeerTable,
    copied,
    judge_resume,
    killed_at,
    load_table,
    numbers_gone_wrong,
    save_table,
    summed_up,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The Trainer of transformers."""
    root = tmp_path_factory.mktemp("peers")
    return Bench(make_tools(root / "workplace")[0], root / "cases", (), random.Random(5))


@pytest.fixture(scope="module")
def broken(bench: Bench) -> Scene:
    """A run killed after step 11, with good checkpoints 6 and 9."""
    return killed_at(bench, 11)


def _points(bench: Bench) -> dict[str, Point]:
    scene = bench.scene()
    log = scene.root / "points.log"
    assert bench.tool.start(scene, (), bench.tool.kill(scene, 9, log, None)).wait(60) == 0
    return {point.name: point for point in bench.tool.points(log, 9)}


def test_a_run_killed_and_started_again_is_judged_by_its_weights(
    bench: Bench, broken: Scene
) -> None:
    numbers = {"steps done again": 11 - 9, "resumed steps": STEPS - 9}
    assert judge_resume(bench, copied(bench, broken)) == Outcome(True, "same weights", numbers)


def test_a_save_cut_short_that_stops_the_tool_is_judged_so(bench: Bench) -> None:
    points = _points(bench)
    written = {Path(name.split()[-1]).name for name in points if "before mkdir" not in name}
    kept = bench.tool.checkpoints(bench.whole.weights.parent.parent)[-1]
    # Rust writes the tokenizer: that one file cannot be seen from here.
    assert {file.name for file in kept.iterdir()} - {"tokenizer.json"} <= written
    scene = bench.scene()
    point = points["in the middle of open checkpoint-9/trainer_state.json"]
    kill = bench.tool.kill(scene, 9, scene.root / "points.log", point)
    assert bench.tool.start(scene, (), kill).wait(60) == -signal.SIGKILL
    assert (scene.out / "checkpoint-9" / "trainer_state.json").stat().st_size == 0
    outcome = judge_resume(bench, scene)
    assert not outcome.good
    assert "cannot resume" in outcome.seen
    assert "removed by hand: same weights" in outcome.seen


def test_other_weights_than_the_right_ones_are_seen(bench: Bench, broken: Scene) -> None:
    case = copied(bench, broken)
    weights = bench.tool.weights(bench.tool.checkpoints(case.out)[-1])
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x80  # the sign of the last number
    weights.write_bytes(content)
    assert judge_resume(bench, case) == Outcome(
        False, "other weights, without a word", {"steps done again": 2, "resumed steps": STEPS - 9}
    )


def test_a_fault_in_a_step_is_done_once_and_what_it_leaves_is_seen(bench: Bench) -> None:
    (outcome,) = numbers_gone_wrong("NaN loss", bench, 1)
    assert not outcome.good
    assert outcome.seen.startswith("exit 0; final weights: finite; checkpoints left: 1 finite, 1 N")
    logs = bench.root.rglob("steps.log")
    assert max(log.read_text().count("fault\n") for log in logs) == 1


def test_steps_are_counted_by_the_optimizer_not_by_the_tool(bench: Bench, broken: Scene) -> None:
    assert steps_in(broken.steps) == 11
    assert [path.name for path in bench.tool.checkpoints(broken.out)] == [
        "checkpoint-6",
        "checkpoint-9",
    ]


def test_a_line_measured_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old = PeerLine("fault", "good when", "tool", "1", "", 3, 2, "seen", "2026-01-01")
    other = replace(old, setting="an option")
    new = replace(old, good=3)
    table = PeerTable("command", "machine", ("torch 2",), "none").with_line(old).with_line(other)
    assert table.with_line(new).lines == (new, other)
    save_table(table, tmp_path / "a" / "peers.json")
    assert load_table(tmp_path / "a" / "peers.json") == table


def test_equal_ends_are_counted_together() -> None:
    outcomes = [Outcome(True, "same", {"steps lost": n}) for n in (0, 2)] + [
        Outcome(False, "other")
    ]
    assert summed_up(outcomes) == "2 × same; 1 × other; steps lost: 0 to 2"


def test_the_page_shows_what_was_measured() -> None:
    page = side_by_side.PAGE.read_text("utf-8")
    assert page == side_by_side.page_with(load_table(side_by_side.RESULTS), page)
