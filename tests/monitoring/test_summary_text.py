from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm.monitoring.events import FindingEvent, OutOfMemoryEvent
from llamafarm.monitoring.summary import summarise
from llamafarm.monitoring.summary_text import render_summary, verdict_line

from .events_of_a_run import end_event, events_of_a_run, overfitting_event, step_event

GOLDEN = Path(__file__).parents[1] / "golden" / "monitoring"


def test_what_happened_on_the_way_is_told_at_the_end(tmp_path: Path) -> None:
    found = [FindingEvent(step=n, rule="spike", text=f"step {n} stands out") for n in (3, 5)]
    lines = render_summary(summarise([*events_of_a_run(), *found]), tmp_path).splitlines()
    first = lines.index("  on the way       step 3 stands out")
    assert lines[first + 1] == "                   step 5 stands out"


def test_the_advice_of_a_kind_is_given_once(tmp_path: Path) -> None:
    found = [
        FindingEvent(
            step=n, rule="spike", text=f"step {n} stands out", advice="look", rows=("a:1",)
        )
        for n in (3, 5)
    ]
    text = render_summary(summarise([*events_of_a_run(), *found]), tmp_path)
    assert text.count("try: look") == 1
    assert "spike: step 5 stands out (rows a:1)" in text


def test_the_verdict_is_one_line() -> None:
    summary = replace(summarise(events_of_a_run()), steps=57, best_step=48, train_loss=1.799)
    assert verdict_line(summary) == (
        "eval loss 2.231 → 1.839 (-17.6 %), best at step 48 of 57; gap +0.040"
    )


def test_the_verdict_of_a_run_without_evaluation_says_so() -> None:
    summary = summarise([step_event(1), step_event(2), end_event(2)])
    assert verdict_line(summary) == "trained 2 steps without an evaluation"


def test_the_end_of_a_run_looks_as_agreed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("fine_tuned_models/my run")
    for name in ("final_model", "checkpoints"):
        (run / name).mkdir(parents=True)
    for name in ("summary.json", "metrics.jsonl", "run.json", "strategy.yaml"):
        (run / name).touch()
    text = render_summary(summarise(events_of_a_run()), run, curves="(curves)") + "\n"
    assert text == (GOLDEN / "summary.txt").read_text(encoding="utf-8")
    assert text.splitlines()[-1] == str(run)


def test_the_end_of_a_run_with_findings_looks_as_agreed(tmp_path: Path) -> None:
    trouble = OutOfMemoryEvent(step=2, during="step", tokens=9, action="smaller parts")
    *events, end = events_of_a_run()
    summary = summarise([*events, trouble, overfitting_event(), end])
    text = render_summary(summary, tmp_path).replace(str(tmp_path), "RUN") + "\n"
    assert text == (GOLDEN / "summary_findings.txt").read_text(encoding="utf-8")


def test_the_end_names_no_file_that_is_not_there(tmp_path: Path) -> None:
    text = render_summary(summarise(events_of_a_run()), tmp_path)
    assert "metrics.jsonl" not in text


def test_the_end_of_a_run_without_evaluation_compares_nothing(tmp_path: Path) -> None:
    text = render_summary(summarise([step_event(1), end_event(1)]), tmp_path)
    assert "base" not in text.replace("--compare-base", "") and "gap" not in text
