"""A run that trains nothing, through the real commands: it has to be reported as no difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .commands import read_events, run

STRATEGY = """\
null:
  components:
    fine_tuner:
      type: pytorch
      config:
        base_model: {model}
        method: {{type: lora, r: 4, alpha: 8}}
        training_args:
          max_steps: 4
          per_device_train_batch_size: 2
          gradient_accumulation_steps: 1
          learning_rate: 0
          eval_steps: 2
  dataset: {{train_file: data.jsonl}}
  metrics: [token_f1, mine.words]
"""
FILES = ("--strategy-file", "null.yaml")
ALLOWED = "--allow-custom-metrics"


@pytest.fixture(scope="module")
def place(workplace: Path, tiny_model_dir: Path) -> Path:
    (workplace / "null.yaml").write_text(STRATEGY.format(model=tiny_model_dir))
    (workplace / "mine.py").write_text(
        "def words(answers, references):\n    return [float(len(a.split())) for a in answers]\n"
    )
    return workplace


def test_code_that_nobody_allowed_stops_before_training(place: Path) -> None:
    done = run("train", "--strategy", "null", *FILES, "--output", "runs/no", cwd=place, code=2)
    assert "null.yaml:15" in done.stderr
    assert "hint: add --allow-custom-metrics" in done.stderr
    assert not (place / "runs" / "no").exists()


def test_a_learning_rate_of_0_is_reported_as_no_difference(place: Path) -> None:
    done = run("train", "--strategy", "null", *FILES, "--output", "runs/null", ALLOWED, cwd=place)
    assert "no difference from the base model: the change is inside the noise" in done.stdout
    assert "nothing is learnt" in done.stderr
    directory = place / "runs" / "null"
    comparison = json.loads((directory / "comparison.json").read_text())
    assert comparison["against_base"]["verdict"] == "no difference"
    assert comparison["models"][1]["verdict"] == "no difference: every row is the same"
    assert set(comparison["models"][1]["metrics"]) == {"token_f1", "mine.words"}
    evaluations = [e for e in read_events(directory) if e["event"] == "eval"]
    assert [set(e["metrics"]) for e in evaluations] == [{"token_f1", "mine.words"}] * 3
    page = (directory / "report.html").read_text()
    assert "no difference from the base model" in page
    lines = (place / "data.jsonl").read_text().splitlines(keepends=True)
    (place / "some.jsonl").write_text("".join(lines[:8]))
    text = run(
        "evaluate", str(directory), "--dataset", "some.jsonl", "--compare-base", ALLOWED, cwd=place
    ).stdout
    assert text.count("no difference: every row is the same") >= 2
    assert "mine.words" in text
