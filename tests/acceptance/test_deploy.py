"""Step 5 of the seed: the deploy lines, from a run of the demo's model and data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamafarm.export.modelfile import parse_modelfile
from llamafarm.models.llama_cpp import LlamaCpp
from llamafarm.models.packaged import PACKAGED_MODEL_NAME

from . import seed
from .typed import ROOT, changed_directory, type_in

QUICK = "--strategy demo3_quick --set max_steps=2 --set eval_strategy=no"


@pytest.fixture(scope="module")
def converted(
    packaged_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The directory the lines were typed in, and what `convert` printed."""
    directory = tmp_path_factory.mktemp("deployed")
    with changed_directory(directory):
        strategies = ROOT / "demos" / "strategies.yaml"
        line = f"train --strategy-file {strategies} {QUICK} --output ./fine_tuned_models/output"
        trained = type_in(line)
        assert trained.code == 0, trained.err
        made = type_in(seed.CONVERT)
        assert made.code == 0, made.err
    return directory, made.out


@pytest.mark.slow
@pytest.mark.seed(18, 143)
def test_the_convert_line_leaves_a_directory_that_is_ready_and_proved(
    converted: tuple[Path, str],
) -> None:
    directory, said = converted
    target = directory / "my-model"
    assert sorted(path.name for path in target.iterdir()) == [
        "Modelfile",
        "README.md",
        "llamafarm.json",
        "my-model-Q8_0.gguf",
        "parity.json",
    ]
    certificate = json.loads((target / "parity.json").read_text("utf-8"))
    assert certificate["passed"] is True
    assert certificate["positions"] >= 200
    assert certificate["prompts"] == "training rows of the run"
    modelfile = parse_modelfile((target / "Modelfile").read_text("utf-8"))
    assert modelfile.gguf == "my-model-Q8_0.gguf"
    assert modelfile.stop_words == ("<|im_end|>",)
    assert not modelfile.parameters and not modelfile.template
    assert "parity certificate, Q8_0: passed" in said
    assert "ollama create my-model -f my-model/Modelfile" in said
    assert not list(directory.glob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.seed(146)
def test_the_model_answers_from_the_file_and_stops(converted: tuple[Path, str]) -> None:
    target = converted[0] / "my-model"
    with LlamaCpp(target / "my-model-Q8_0.gguf", context_tokens=512, threads=2) as engine:
        prompt = engine.tokenize(engine.render([{"role": "user", "content": seed.TEST_PROMPT}]))
        answer = engine.generate(prompt, max_new_tokens=200, stop_words=["<|im_end|>"])
    assert answer.stopped_by == "eos"
    assert len(answer.text.split()) > 3
    assert "<|im" not in answer.text


@pytest.mark.slow
@pytest.mark.seed(18)
def test_a_card_in_the_directory_names_base_and_licence(converted: tuple[Path, str]) -> None:
    card = (converted[0] / "my-model" / "README.md").read_text("utf-8")
    assert f'base_model: "{PACKAGED_MODEL_NAME}"' in card
    assert 'license: "apache-2.0"' in card
    assert "passed: the file in llama.cpp against what it was made from" in card
