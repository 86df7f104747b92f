"""The order of engines, and what is kept of a run."""

from __future__ import annotations

import json
from pathlib import Path

from bench.run import keep, turned

from tests.bench.made_up import BASE, OURS, REGROUPED
from tests.bench.test_report import report


def test_another_engine_begins_every_round() -> None:
    engines = [OURS, BASE, REGROUPED]
    assert [turned(engines, n)[0] for n in range(4)] == [OURS, BASE, REGROUPED, OURS]
    assert turned(engines, 1) == [BASE, REGROUPED, OURS]


def test_results_keep_every_step_and_no_path_of_the_machine(tmp_path: Path) -> None:
    keep(tmp_path / "results" / "r.json", report())
    kept = json.loads((tmp_path / "results" / "r.json").read_text())
    (section,) = kept["sections"]
    assert len(section["measured"]["runs"]["ours"][0]["steps"]) == 3
    assert "adapter_directory" not in section["measured"]["runs"]["ours"][0]
    assert "model_directory" not in section["spec"]
