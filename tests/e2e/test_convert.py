"""A run of the real command becomes a file of the real engine, and is measured beside itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .commands import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(finished: Path, workplace: Path) -> Path:
    """`convert` on the run, as its own process."""
    run("convert", str(finished), "models/tiny", "--format", "gguf", "--quantization", "f16",
        cwd=workplace)  # fmt: skip
    return workplace / "models" / "tiny"


def test_the_certificate_of_a_trained_run_passes(exported: Path) -> None:
    certificate = json.loads((exported / "parity.json").read_text())
    assert certificate["passed"]
    assert certificate["prompts"] == "evaluation rows of the run"
    assert certificate["agreed"] == certificate["decided"]
    names = [layer["name"] for layer in certificate["layers"]]
    assert names == ["rendered text", "token ids", "predictions", "end of an answer", "weights"]


def test_base_best_and_export_stand_in_one_table(
    finished: Path, exported: Path, workplace: Path
) -> None:
    """A few rows: this model answers each with as many words as it is let."""
    lines = (workplace / "data.jsonl").read_text().splitlines()[:3]
    (workplace / "few.jsonl").write_text("\n".join(lines) + "\n")
    file = str(next(exported.glob("*.gguf")))
    done = run("evaluate", str(finished), "--dataset", "few.jsonl", "--compare-base",
               "--compare", file, "--json", cwd=workplace)  # fmt: skip
    report = json.loads(done.stdout)
    tuned, others = report["tuned"], report["compared"]
    assert report["base"]["loss"] > tuned["loss"]
    assert len(others) == 1
    assert others[0]["scores"]["loss"] == pytest.approx(tuned["loss"], rel=1e-3)


def test_train_exports_at_its_end_what_the_strategy_asks_for(workplace: Path) -> None:
    done = run("train", "--strategy", "tiny", "--output", "runs/exported", "--export", "ollama",
               "--set", "max_steps=2", cwd=workplace)  # fmt: skip
    target = workplace / "runs" / "exported" / "ollama"
    assert (target / "Modelfile").read_text().startswith("FROM ./exported-Q8_0.gguf\n")
    assert json.loads((target / "parity.json").read_text())["passed"]
    assert "parity certificate, Q8_0: passed" in done.stdout


def test_an_export_that_cannot_be_made_stops_before_training(workplace: Path) -> None:
    done = run("train", "--strategy", "tiny", "--output", "runs/never", "--export", "gguf",
               "--set", "export.quantization=q9_0", cwd=workplace, code=2)  # fmt: skip
    assert "there is no file type 'q9_0'" in done.stderr
    assert not (workplace / "runs" / "never").exists()
