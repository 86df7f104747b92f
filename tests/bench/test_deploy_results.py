"""Medians, ratios and limits, and results that come back from their file as they were."""

from __future__ import annotations

from pathlib import Path

from bench.deploy.child import peak_of
from bench.deploy.results import read_parts, write_parts

from tests.bench.made_up_deploy import MEMORY, PARTS, SPEED


def test_the_ratio_is_of_medians_not_of_single_runs() -> None:
    assert SPEED.seconds("floor") == 1.0
    assert SPEED.seconds("conversion") == 1.5
    assert SPEED.ratio == 1.5


def test_a_slow_run_does_not_count_in_the_ratio_of_the_fastest() -> None:
    assert SPEED.fastest("floor") == 0.9
    assert SPEED.ratio_of_fastest == 1.4 / 0.9


def test_memory_is_counted_over_the_interpreters_own() -> None:
    assert MEMORY.over_interpreter == 80_000_000


def test_the_limit_is_twice_the_largest_tensor_and_300_mb() -> None:
    assert MEMORY.allowed_bytes == 500_000_000


def test_the_peak_is_read_in_bytes() -> None:
    assert peak_of("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n") == 2 * 1024**2


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    write_parts(file, PARTS)
    assert read_parts(file) == PARTS


def test_no_file_is_no_parts(tmp_path: Path) -> None:
    assert read_parts(tmp_path / "none.json") == {}
