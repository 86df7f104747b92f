"""One short run through the real command, which several tests look at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .commands import run

STEPS = 8


@pytest.fixture(scope="session")
def workplace(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with data and a strategy, as a person would have it."""
    directory = tmp_path_factory.mktemp("workplace")
    rows = [
        {"question": f"What is number {i}?", "answer": f"It is the number {i}, of course."}
        for i in range(60)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "data.jsonl").write_text(text)
    (directory / "strategies.yaml").write_text(
        f"""\
version: "2.0"
tiny:
  name: "A tiny run"
  components:
    fine_tuner:
      type: pytorch
      config:
        base_model: {tiny_model_dir}
        method: {{type: lora, r: 4, alpha: 8, dropout: 0.1}}
        training_args:
          max_steps: {STEPS}
          per_device_train_batch_size: 2
          gradient_accumulation_steps: 2
          learning_rate: 2e-2
          eval_steps: 2
  dataset:
    train_file: data.jsonl
  monitoring:
    log_tensorboard: true
"""
    )
    return directory


@pytest.fixture(scope="session")
def finished(workplace: Path) -> Path:
    """The run directory of `train`."""
    run("train", "--strategy", "tiny", "--output", "runs/whole", cwd=workplace)
    return workplace / "runs" / "whole"
