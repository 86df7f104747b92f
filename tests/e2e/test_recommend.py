"""recommend → file → train, and init → setup → info, through the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llamafarm.strategy.loader import load_strategy

from .commands import COMMAND, environment, run

pytestmark = pytest.mark.slow


def test_a_recommended_file_trains_what_train_dataset_trains(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """The bundled rows, by their bare name, through a pipe as people type it."""
    options = ("--dataset", "medical_qa.jsonl", "--base-model", str(tiny_model_dir))
    made = run("recommend", *options, cwd=tmp_path)
    (tmp_path / "s.yaml").write_text(made.stdout)
    found = load_strategy(tmp_path / "s.yaml", None, environ={})
    assert (found.dataset.path, found.dataset.eval_split) == ("medical_qa.jsonl", 0.1)
    short = ("--set", "training_args.max_steps=2", "--json")
    run("train", "--strategy-file", "s.yaml", "--output", "a", *short, cwd=tmp_path)
    run("train", *options, "--output", "b", *short, cwd=tmp_path)
    summaries = [json.loads((tmp_path / d / "summary.json").read_text()) for d in "ab"]
    assert [s["status"] for s in summaries] == ["completed", "completed"]
    assert [s["steps"] for s in summaries] == [2, 2]
    assert summaries[0]["base_eval_loss"] == summaries[1]["base_eval_loss"]
    assert summaries[0]["trained_tokens"] == summaries[1]["trained_tokens"]


def test_a_first_strategy_is_ready_and_explained(tiny_model_dir: Path, tmp_path: Path) -> None:
    run("init", "--base-model", str(tiny_model_dir), cwd=tmp_path)
    done = run("setup", "strategy.yaml", "--verify-only", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert (report["ok"], report["problems"]) == (True, [])
    refused = run("init", "--base-model", str(tiny_model_dir), cwd=tmp_path, code=2)
    assert "strategy.yaml exists" in refused.stderr
    done = run(
        *("info", "my_strategy", "--strategy-file", "strategy.yaml", "--field", "method.r"),
        cwd=tmp_path,
    )
    assert "origin    strategy" in done.stdout
    assert "reason    strategy.yaml:" in done.stdout


@pytest.mark.parametrize("command", ["recommend", "init", "info"])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    words = [*COMMAND[1:], command, "--help"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "pydantic", "yaml"}
