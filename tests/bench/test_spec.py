"""Specs, rows and results cross between two environments as files."""

from __future__ import annotations

from pathlib import Path

from bench.spec import ENGINES, EngineRun, Row, RunSpec, peak_rss_bytes, read_rows, write_rows

from tests.bench.made_up import run, step


def test_a_spec_survives_the_file(tmp_path: Path) -> None:
    spec = RunSpec("/m", "/r", "/o", options={"packing": True})
    spec.write(tmp_path / "spec.json")
    assert RunSpec.read(tmp_path / "spec.json") == spec


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = [Row((1, 2), (-100, 2)), Row((3,), (-100,))]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_a_run_survives_its_line() -> None:
    made = run([step(), step(seconds=3.0)])
    assert EngineRun.from_json(made.to_json()) == made
    assert "\n" not in made.to_json()


def test_the_first_position_is_never_a_prediction() -> None:
    assert Row((7, 8, 9), (7, -100, 9)).num_trained == 1


def test_engines_are_told_apart_by_name() -> None:
    assert len({engine.name for engine in ENGINES}) == len(ENGINES)


def test_resident_memory_is_in_bytes() -> None:
    assert peak_rss_bytes() > 10 * 1024**2
