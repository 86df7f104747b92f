"""A run of the corpus made anew: the script works, and what it makes is what is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.monitoring.events import EvalEvent

from . import make_corpus
from .cases import all_cases
from .score import events_of, told


@pytest.mark.slow
def test_a_run_made_anew_finds_what_the_recorded_one_did(
    packaged_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = [case for case in all_cases() if case.name == "small_memory-medical-1"]
    recorded = events_of(case)
    monkeypatch.setattr(make_corpus, "CORPUS", tmp_path)
    make_corpus.make(case)
    assert told(case) == {"memory_pressure"}
    losses, before = (
        [e.eval_loss for e in events if isinstance(e, EvalEvent)]
        for events in (events_of(case), recorded)
    )
    assert losses == pytest.approx(before, abs=1e-2)
