"""Strategy → plan → steps → run directory, through the real command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llamafarm.training.checkpoint import list_checkpoints, verify_checkpoint
from tests.training.runs import hash_of

from .commands import read_events, run
from .fixtures import STEPS

pytestmark = pytest.mark.slow


def test_the_run_directory_holds_what_the_contract_says(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()} - {".lock"}
    assert names == {
        "run.json",
        "strategy.yaml",
        "metrics.jsonl",
        "summary.json",
        "comparison.json",
        "report.html",
        "plots",
        "checkpoints",
        "evaluations",
        "final_model",
        "logs",
    }
    model = {p.name for p in (finished / "final_model").iterdir()}
    assert model >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    }
    assert any((finished / "logs").glob("events.out.tfevents.*"))
    for checkpoint in list_checkpoints(finished / "checkpoints"):
        assert verify_checkpoint(checkpoint.path) == ""


def test_summary_and_run_record_agree_with_the_events(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    record = json.loads((finished / "run.json").read_text())
    events = read_events(finished)
    evaluations = {e["step"]: e["eval_loss"] for e in events if e["event"] == "eval"}
    assert summary["status"] == record["status"] == "completed"
    assert summary["steps"] == STEPS
    assert summary["base_eval_loss"] == evaluations[0]
    best = min((step for step in evaluations if step), key=lambda step: evaluations[step])
    assert (summary["best_step"], summary["eval_loss"]) == (best, evaluations[best])
    assert summary["eval_loss"] < summary["base_eval_loss"]
    assert [e["step"] for e in events if e["event"] == "step"] == list(range(1, STEPS + 1))
    assert sorted(evaluations) == [0, 2, 4, 6, 8]
    steps = [e for e in events if e["event"] == "step"]
    assert summary["trained_tokens"] == steps[-1]["trained_tokens"]
    assert record["seed"] == 42
    assert record["versions"]["torch"]
    assert {d["field"] for d in record["decisions"]} >= {"learning_rate", "device", "precision"}
    assert record["forecast"]["memory_bytes"] > 0
    assert record["actual"]["memory_bytes"] > 0


def test_the_written_strategy_repeats_the_run(workplace: Path, finished: Path) -> None:
    shutil.copy(finished / "strategy.yaml", workplace / "again.yaml")
    run("train", "--strategy-file", "again.yaml", "--output", "runs/again", cwd=workplace)
    again = workplace / "runs" / "again"
    assert hash_of(again / "final_model") == hash_of(finished / "final_model")


def test_a_directory_with_a_run_in_it_is_refused_unless_told_what_to_do(
    workplace: Path, finished: Path
) -> None:
    before = hash_of(finished / "final_model")
    refused = run("train", "--strategy", "tiny", "--output", str(finished), cwd=workplace, code=2)
    assert "is not empty" in refused.stderr
    assert all(flag in refused.stderr for flag in ("--resume", "--overwrite", "--output"))
    assert "Traceback" not in refused.stderr
    assert hash_of(finished / "final_model") == before


def test_the_trained_model_answers_and_is_measured(workplace: Path, finished: Path) -> None:
    """On some rows: this model answers each with as many words as it is let."""
    lines = (workplace / "data.jsonl").read_text().splitlines()[:6]
    (workplace / "some.jsonl").write_text("\n".join(lines) + "\n")
    answer = run(
        "generate", str(finished), "What is number 3?", "--max-new-tokens", "5", cwd=workplace
    )
    assert answer.stdout.strip()
    report = json.loads(
        run(
            "evaluate",
            str(finished),
            "--dataset",
            "some.jsonl",
            "--compare-base",
            "--json",
            cwd=workplace,
        ).stdout
    )
    assert report["rows"] == 6
    assert report["tuned"]["loss"] < report["base"]["loss"]
    paired = report["paired"]
    assert paired["better"] > paired["worse"]
    assert paired["better"] + paired["worse"] + paired["same"] == 6


def test_chat_reads_lines_and_remembers(workplace: Path, finished: Path) -> None:
    done = run("chat", str(finished), cwd=workplace, stdin="hello\n/exit\n")
    assert done.stdout.strip()


def test_setup_says_what_train_will_do_and_writes_nothing(workplace: Path) -> None:
    before = sorted(p.name for p in workplace.rglob("*"))
    done = run(
        "setup", "strategies.yaml", "--strategy", "tiny", "--verify-only", "--json", cwd=workplace
    )
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["problems"] == []
    fields = {d["field"] for d in report["decisions"]}
    assert fields >= {"device", "precision", "learning_rate", "max_steps"}
    assert all(set(d) == {"field", "value", "source", "reason"} for d in report["decisions"])
    assert report["data"]["train"]["rows"] == 54
    assert report["forecast"]["memory_bytes"] > 0
    assert sorted(p.name for p in workplace.rglob("*")) == before


def test_the_log_level_decides_what_a_terminal_is_told(workplace: Path) -> None:
    common = ("train", "--strategy", "tiny", "--set", "training_args.max_steps=1")
    talk = {
        level: run(
            *common,
            *("--set", f"monitoring.log_level={level}", "--output", f"runs/{level}"),
            cwd=workplace,
        )
        for level in ("debug", "error")
    }
    assert talk["error"].stderr.strip() == ""
    assert "final_model" in talk["error"].stdout
    assert "weight_decay" in talk["debug"].stderr
    assert "step 1/1" in talk["debug"].stderr
