"""One strategy, both engines: SmolLM2-135M on the demo's rows, through the real commands, with only
`type` changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llamafarm.training.backends.llamafactory.environment import Environment

from .commands import ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("llamafactory_environment")]

STEPS, EVAL_ROWS = 24, 16
STRATEGY = """
{engine}:
  components:
    fine_tuner:
      type: {engine}
      config:
        method: {{type: lora, r: 8, alpha: 16, dropout: 0.0}}
        training_args:
          max_steps: 24
          per_device_train_batch_size: 2
          gradient_accumulation_steps: 1
          learning_rate: 5e-4
          eval_steps: 24
          logging_steps: 4
          max_seq_length: 128
  dataset: {{train_file: medical_qa_train.jsonl, eval_file: eval.jsonl}}
"""
ENGINES = ("pytorch", "llamafactory")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strategies of both engines, and the first of the demo's evaluation rows."""
    directory = tmp_path_factory.mktemp("engines")
    lines = (ROOT / "demos" / "datasets" / "medical" / "medical_qa_eval.jsonl").read_text()
    (directory / "eval.jsonl").write_text("".join(lines.splitlines(keepends=True)[:EVAL_ROWS]))
    for engine in ENGINES:
        (directory / f"{engine}.yaml").write_text(STRATEGY.format(engine=engine))
    return directory


@pytest.fixture(scope="module")
def runs(place: Path, llamafactory_environment: Environment) -> Mapping[str, Path]:
    """Both trained, after `setup`."""
    for engine in ENGINES:
        assert "ready: " in run("setup", f"{engine}.yaml", cwd=place).stdout
        run("train", "--strategy-file", f"{engine}.yaml", "--output", f"runs/{engine}", cwd=place)
    return {engine: place / "runs" / engine for engine in ENGINES}


def test_both_engines_start_and_end_alike(runs: Mapping[str, Path]) -> None:
    own, other = (summary_of(runs[engine]) for engine in ENGINES)
    assert own["base_eval_loss"] == pytest.approx(other["base_eval_loss"], abs=1e-3)
    assert own["eval_loss"] == pytest.approx(other["eval_loss"], rel=0.02)
    assert own["eval_loss"] < 0.95 * own["base_eval_loss"]
    assert own["steps"] == other["steps"] == STEPS
    assert own["train_tokens"] == pytest.approx(other["train_tokens"], rel=0.25)
    assert set(own) == set(other)


def test_both_leave_the_same_directory(runs: Mapping[str, Path]) -> None:
    own, other = ({path.name for path in runs[engine].iterdir()} for engine in ENGINES)
    assert other - own == {"llamafactory"}
    models = [
        sorted(p.name for p in (runs[engine] / "final_model").iterdir()) for engine in ENGINES
    ]
    assert models[0] == models[1]
    kinds = [{event["event"] for event in events_of(runs[engine])} for engine in ENGINES]
    assert {"settings", "start", "step", "eval", "checkpoint", "end"} <= kinds[0] & kinds[1]


def test_the_adapter_loads_in_stock_peft_and_its_file_is_proved(
    runs: Mapping[str, Path], place: Path, packaged_model_dir: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(packaged_model_dir)
    model = PeftModel.from_pretrained(base, runs["llamafactory"] / "final_model")
    assert model.peft_config["default"].r == 8
    run("convert", str(runs["llamafactory"]), "model", "--format", "gguf", "--quantization", "f16",
        cwd=place)  # fmt: skip
    certificate = json.loads((place / "model" / "parity.json").read_text())
    assert certificate["passed"]
    assert certificate["agreed"] == certificate["decided"]


def test_the_other_commands_take_its_run_as_any(runs: Mapping[str, Path], place: Path) -> None:
    source = str(runs["llamafactory"])
    assert run("generate", source, "What is a fever?", "--max-new-tokens", "8",
               cwd=place).stdout.strip()  # fmt: skip
    (place / "few.jsonl").write_text(
        '{"question": "What is a fever?", "answer": "A raised body temperature."}\n'
    )
    done = run("evaluate", source, "--dataset", "few.jsonl", "--compare-base", "--json", cwd=place)
    report = json.loads(done.stdout)
    assert report["tuned"]["loss"] < report["base"]["loss"]
    (runs["llamafactory"] / "report.html").unlink()
    run("report", source, cwd=place)
    assert "llamafactory" in (runs["llamafactory"] / "report.html").read_text()


def test_nothing_differs_before_the_first_step(
    place: Path, llamafactory_environment: Environment
) -> None:
    done = run("compare-backends", "pytorch.yaml", "--set", "mixed_precision=no", "--json",
               cwd=place)  # fmt: skip
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert [name for name, row in rows.items() if not row["same"]] == []
    assert rows["training tokens"]["pytorch"].startswith("305 rows")
    losses = [float(rows["loss before step 1"][engine]) for engine in ENGINES]
    assert math.isclose(*losses, abs_tol=1e-4)


def summary_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return found


def events_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
