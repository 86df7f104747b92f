"""What a run leaves for people when it ends, however it ends."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm.errors import Interrupted, OutputError
from llamafarm.monitoring.events import Event, MessageEvent
from llamafarm.monitoring.report import write
from llamafarm.monitoring.run_record import read_run_record
from llamafarm.planning.plan import TrainingPlan

from .runs import Ran, run_plan, tiny_plan


@pytest.fixture(scope="module")
def ran(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Shared: do not write into it."""
    plan = tiny_plan(tiny_model_dir, tmp_path_factory.mktemp("runs") / "whole")
    return run_plan(replace(plan, title="Tiny <b>\ntitle"), report=True)


@pytest.fixture
def plan(tiny_model_dir: Path, tmp_path: Path) -> TrainingPlan:
    return tiny_plan(tiny_model_dir, tmp_path / "run", batch={"total_steps": 6})


def test_a_finished_run_has_a_page_and_pictures(ran: Ran) -> None:
    page = (ran.directory.root / "report.html").read_text(encoding="utf-8")
    assert "Tiny &lt;b&gt;" in page
    assert f"{ran.summary.eval_loss:.3f}" in page
    assert {p.name for p in (ran.directory.root / "plots").iterdir()} >= {"loss.png", "memory.png"}
    assert not list(ran.directory.root.glob(".tmp-*"))


def test_the_record_of_a_run_holds_what_the_run_was(ran: Ran) -> None:
    record = read_run_record(ran.directory.root)
    assert record.unread == ()
    assert (record.status, record.strategy, record.seed) == ("completed", "tiny", 42)
    assert record.has_model
    assert record.summary == ran.summary
    assert record.data is not None
    assert record.hardware is not None
    assert record.forecast is not None
    assert record.actual is not None
    assert record.actual.seconds == ran.summary.runtime_seconds
    assert list(record.events) == ran.recorded


def test_the_model_card_says_what_the_report_says(ran: Ran) -> None:
    card = (ran.directory.final_model / "README.md").read_text(encoding="utf-8")
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    base = json.dumps(str(tiny_base(ran)))
    assert front.splitlines() == [
        f"base_model: {base}",
        "base_model_relation: adapter",
        "library_name: peft",
        "pipeline_tag: text-generation",
        "tags:",
        "- llamafarm",
        "- lora",
    ]
    assert body.startswith("\n# Tiny &lt;b&gt; title\n")
    sections = [line for line in body.splitlines() if line.startswith("## ")]
    assert sections[0] == "## Results"
    assert sections[-1] == "## Versions"
    assert f"| base | 0 | {ran.summary.base_eval_loss:.4f} |" in body
    assert "llamafarm chat PATH" in body


def tiny_base(ran: Ran) -> str:
    record = read_run_record(ran.directory.root)
    assert record.model is not None
    return record.model.requested


def test_an_interrupted_run_has_a_page_that_says_so(plan: TrainingPlan) -> None:
    def on_event(event: Event) -> None:
        if event.kind == "step" and getattr(event, "step", 0) == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_plan(plan, on_event=on_event, report=True)
    page = (plan.output_dir / "report.html").read_text(encoding="utf-8")
    assert "Interrupted at step 3" in page
    run_plan(plan, resume=True, report=True)
    page = (plan.output_dir / "report.html").read_text(encoding="utf-8")
    assert "resumed 1 time" in page
    assert "Interrupted" not in page


@pytest.mark.parametrize("error", [OutputError("the disk is full"), TypeError("a defect")])
def test_a_report_that_cannot_be_written_costs_a_line_and_not_the_run(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(write, "write_report", fail)
    ran = run_plan(plan, report=True)
    assert ran.summary.status == "completed"
    assert json.loads(ran.directory.run_file.read_text())["status"] == "completed"
    told = [e.text for e in ran.events if isinstance(e, MessageEvent) and e.level == "warning"]
    why = error.summary if isinstance(error, OutputError) else "a defect"
    assert told == [f"the report could not be written ({why}); `llamafarm report` does it again"]
