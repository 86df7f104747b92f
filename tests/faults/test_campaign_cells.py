"""Rows of the campaign that run in one process cover what they say, and see what is broken."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import asdict, replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

import pytest

from llamafarm.training import checkpoint
from llamafarm.training.backends.pytorch import gradients
from llamafarm.training.backends.pytorch.batches import BatchFeed
from llamafarm.training.backends.pytorch.snapshot import Snapshot
from tests.faults.campaign import corruption, grid, numbers, oom
from tests.faults.campaign.together import chance_of
from tests.training.runs import write_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> corruption.Scene:
    return corruption.prepare_scene(tmp_path_factory.mktemp("scene"))


def _pairs(cells: list[grid.Cell]) -> dict[tuple[str, str], set[tuple[Any, Any]]]:
    """Factor and factor → the pairs of their values that occur."""
    found: dict[tuple[str, str], set[tuple[Any, Any]]] = defaultdict(set)
    for cell in cells:
        values = asdict(cell)
        for one, other in combinations(values, 2):
            found[one, other].add((values[one], values[other]))
    return found


def _levels(cells: list[grid.Cell]) -> dict[str, int]:
    return {name: len({asdict(c)[name] for c in cells}) for name in asdict(cells[0])}


def test_every_pair_of_values_occurs_in_the_long_grid() -> None:
    cells = grid.cells(grid.LONG_CELLS)
    levels = _levels(cells)
    assert levels["halt"] == 7
    assert levels["scheduler"] == 5
    for (one, other), pairs in _pairs(cells).items():
        assert len(pairs) == levels[one] * levels[other], (one, other)


def test_the_short_grid_holds_every_value_and_every_pair_with_a_factor_of_two_values() -> None:
    cells = grid.cells(grid.SHORT_CELLS)
    levels = _levels(cells)
    assert levels == _levels(grid.cells(grid.LONG_CELLS))
    for (one, other), pairs in _pairs(cells).items():
        if 2 in (levels[one], levels[other]):
            assert len(pairs) == levels[one] * levels[other], (one, other)


def test_the_grid_sees_randomness_that_does_not_follow_from_the_step(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = grid.cells(1)[0]
    assert cell.dropout > 0
    draws = count()
    monkeypatch.setattr(gradients, "step_seed", lambda seed, step: next(draws))
    case = grid.run_cell(0, cell, model.parent, tmp_path)
    assert not case.passed
    assert "final weights differ" in case.detail


def test_the_grid_sees_an_optimizer_that_is_not_restored(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafarm.training.backends.pytorch import snapshot

    monkeypatch.setattr(snapshot, "join_optimizer_state", lambda *given: None)
    case = grid.run_cell(0, grid.cells(1)[0], model.parent, tmp_path)
    assert "checkpoint-10/optimizer.safetensors differs" in case.detail


def test_a_killed_process_changes_no_file(tmp_path: Path) -> None:
    from llamafarm.files import staged_directory, write_bytes
    from tests.training.runs import Killed

    with grid.MortalProcess(fsync=2), pytest.raises(Killed), staged_directory(tmp_path / "d") as d:
        write_bytes(d / "one", b"1")
        write_bytes(d / "two", b"2")
    (stage,) = tmp_path.iterdir()
    assert stage.name.startswith(".tmp-")
    assert {p.name for p in stage.iterdir()} == {"one", "two"}


def test_a_damage_is_the_same_each_time_it_is_done(scene: corruption.Scene, tmp_path: Path) -> None:
    for number, damage in enumerate(corruption.DAMAGES):
        done = set()
        for name in ("one", "other"):
            place = tmp_path / f"{number}-{name}"
            shutil.copytree(scene.broken / "checkpoints", place / "checkpoints")
            done.add(damage(place / "checkpoints", scene, chance_of(number)).what)
        assert len(done) == 1, done


def test_corruption_sees_a_checkpoint_that_is_not_verified(
    scene: corruption.Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "verify_checkpoint", lambda path: "")
    cases = [corruption.run_case(n, scene, tmp_path / str(n)) for n in range(1, 16)]
    assert not any(case.passed for case in cases)


def test_corruption_sees_a_final_model_of_damaged_weights(
    scene: corruption.Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = corruption.DAMAGES.index(corruption.damage_best)
    from llamafarm.training import keeper

    monkeypatch.setattr(keeper, "fault_of_step", lambda checkpoints, step: "")
    monkeypatch.setattr(
        keeper,
        "checkpoint_files",
        lambda path, leave_out: ((f.name, f.read_bytes()) for f in path.glob("*.safetensors")),
    )
    monkeypatch.setattr(corruption, "_FILE_DAMAGES", (corruption._flip,) * 20)
    assert not corruption.run_case(best, scene, tmp_path / "case").passed


@pytest.fixture
def bench(model: Path, tmp_path: Path) -> numbers.Bench:
    return numbers.Bench(tmp_path, model)


def test_numbers_see_a_step_whose_numbers_are_not_looked_at(
    bench: numbers.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients.Gradients, "finite", property(lambda made: True))
    skipping = 2 + len(numbers.FAULTS)  # to stop, an evaluation would be enough
    assert not numbers.run_case(skipping, bench).passed
    monkeypatch.setattr(Snapshot, "non_finite", lambda self: ())
    case = numbers.run_case(skipping, replace(bench, workdir=bench.workdir / "again"))
    assert "is not finite" in case.detail


def test_numbers_see_a_message_that_names_all_rows_of_the_step(
    bench: numbers.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients.GradientMaker, "rows_at_fault", lambda self, batch, alone: ())
    assert "the error names" in numbers.run_case(0, bench).detail


def test_memory_sees_a_row_that_is_left_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def within(self: BatchFeed, batch: Any, token_budget: int) -> Any:
        parts = whole(self, batch, token_budget)
        cut = slice(None, -1 if token_budget else None)
        return replace(parts, groups=parts.groups[cut], rows=parts.rows[cut])

    whole = BatchFeed.within
    monkeypatch.setattr(BatchFeed, "within", within)
    case = oom.run_case(0, oom.Bench(tmp_path, model))
    assert "was made of the rows" in case.detail
    assert "weights differ" in case.detail


def test_memory_sees_a_safe_size_that_is_forgotten(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafarm.training.state import LoopState

    def forgetful(values: dict[str, Any]) -> LoopState:
        return replace(whole(values), token_budget=0, activations_recomputed=False)

    number = oom.SHORTAGES.index(oom.stopped_and_resumed)
    whole = LoopState.from_json
    monkeypatch.setattr(LoopState, "from_json", forgetful)
    assert "was forgotten" in oom.run_case(number, oom.Bench(tmp_path, model)).detail
