"""`convert` from every kind of source, through the real command: what lies in the target."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamafarm.cli.main import main
from llamafarm.export.gguf_source import open_gguf
from llamafarm.models.gguf_file import read_gguf
from llamafarm.models.record import RECORD_FILE, ModelRecord, read_model_record
from llamafarm.training.checkpoint import write_checkpoint
from tests.export.architectures_for_tests import tiny_model
from tests.export.exported import adapter_on
from tests.export.ollama_double import OllamaDouble, serving

NO_SERVER = "127.0.0.1:9"
RECORD = ModelRecord(
    base_name="base",
    system_prompt="Be brief.",
    stop_words=("User:",),
    add_bos=False,
    end_token_id=2,
    max_length=64,
)
GGUF = ("--format", "gguf", "--no-verify")


@pytest.fixture(scope="module")
def trained(smollm2_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base/`, `adapter/`, and `run/` with the same adapter; do not write into it."""
    directory = tmp_path_factory.mktemp("trained")
    base = tiny_model(
        "LlamaForCausalLM",
        directory / "base",
        tokenizer=smollm2_tokenizer_dir,
        hidden_size=32,
        head_dim=8,
    )
    adapter = adapter_on(base, directory / "adapter")
    final = directory / "run" / "final_model"
    shutil.copytree(adapter, final)
    (final / RECORD_FILE).write_bytes(RECORD.to_bytes())
    files = [(path.name, path.read_bytes()) for path in sorted(final.iterdir())]
    write_checkpoint(directory / "run" / "checkpoints", 3, files)
    for name in ("run.json", "strategy.yaml"):
        (directory / "run" / name).write_text("{}")
    return directory


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMAFARM_CACHE", str(trained / "cache"))
    monkeypatch.setenv("OLLAMA_HOST", NO_SERVER)
    return tmp_path


@pytest.fixture
def converted(here: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Path]:
    """Run `convert` into a new directory, which is returned."""

    def convert(source: Path | str, *argv: str, name: str = "out") -> Path:
        code = main(["convert", str(source), name, *argv])
        assert code == 0, capfd.readouterr().err
        return here / name

    return convert


def gguf_of(target: Path) -> Path:
    (file,) = target.glob("*.gguf")
    return file


def tensors_of(file: Path) -> dict[str, bytes]:
    source = open_gguf(file, None)
    return {
        name: source.weights.read_encoded(name, 0, shape[0]).tobytes()
        for name, shape in source.weights.shapes.items()
    }


@pytest.mark.parametrize("source", ["run", "run/final_model", "run/checkpoints/checkpoint-3"])
def test_a_run_and_each_of_its_models_become_the_same_file_as_the_adapter(
    source: str, converted: Any, trained: Path
) -> None:
    bare = converted(trained / "adapter", *GGUF, name="bare")
    made = converted(trained / source, *GGUF)
    assert tensors_of(gguf_of(made)) == tensors_of(gguf_of(bare))
    assert tensors_of(gguf_of(made)) != tensors_of(
        gguf_of(converted(trained / "base", *GGUF, name="base"))
    )


def test_a_merged_model_becomes_the_same_file_as_its_adapter(converted: Any, trained: Path) -> None:
    merged = converted(trained / "run", "--format", "safetensors", name="merged")
    from_run = converted(trained / "run", "--format", "ollama", "--no-verify", name="m1")
    from_merged = converted(merged, "--format", "ollama", "--no-verify", "--name", "m1", name="m2")
    assert tensors_of(gguf_of(from_merged)) == tensors_of(gguf_of(from_run))
    for name in ("Modelfile", RECORD_FILE):
        assert (from_merged / name).read_bytes() == (from_run / name).read_bytes(), name


def test_a_merged_directory_holds_a_whole_model_and_what_it_remembers(
    converted: Any, trained: Path
) -> None:
    merged = converted(trained / "run", "--format", "safetensors")
    assert sorted(file.name for file in merged.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "llamafarm.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert read_model_record(merged).system_prompt == "Be brief."


def test_the_record_of_weights_that_are_whole_says_nothing_of_quantisation(
    converted: Any, trained: Path, here: Path
) -> None:
    """A full model's record never names one; a merged model's has to forget it."""
    source = here / "full"
    shutil.copytree(trained / "base", source)
    record = ModelRecord(base_name="b", base_quantization={"bits": 4})
    (source / RECORD_FILE).write_bytes(record.to_bytes())
    for kind in (("--format", "safetensors"), GGUF):
        made = converted(source, *kind, "--overwrite")
        assert read_model_record(made).base_quantization is None
        assert read_model_record(made).base_name == "b"


def test_a_gguf_file_becomes_others_that_hold_the_same(converted: Any, trained: Path) -> None:
    first = converted(trained / "run", *GGUF, "--quantization", "f16", name="first")
    copy = converted(gguf_of(first), *GGUF, name="copy")
    assert gguf_of(copy).name == "copy-F16.gguf"
    assert tensors_of(gguf_of(copy)) == tensors_of(gguf_of(first))
    smaller = converted(gguf_of(first), *GGUF, "--quantization", "q8_0", name="smaller")
    assert gguf_of(smaller).name == "smaller-Q8_0.gguf"
    assert gguf_of(smaller).stat().st_size < gguf_of(first).stat().st_size


def test_a_gguf_file_keeps_prompt_and_stop_words_of_its_training(
    converted: Any, trained: Path
) -> None:
    first = converted(trained / "run", *GGUF, name="first")
    made = converted(gguf_of(first), "--format", "ollama", "--no-verify")
    text = (made / "Modelfile").read_text()
    assert 'SYSTEM """Be brief."""' in text or 'SYSTEM "Be brief."' in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert 'PARAMETER stop "User:"' in text


@pytest.mark.slow
def test_a_gguf_file_becomes_a_hugging_face_directory(converted: Any, trained: Path) -> None:
    from llamafarm.models.load import load_finished_model

    first = converted(trained / "adapter", *GGUF, "--quantization", "f16", name="first")
    made = converted(gguf_of(first), "--format", "safetensors")
    model, tokenizer = load_finished_model(made)
    assert model.num_parameters() > 0
    assert tokenizer.chat_template


@pytest.mark.slow
def test_a_base_model_s_name_is_a_source(
    converted: Any, packaged_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMAFARM_CACHE")
    made = converted("smollm2-135m-instruct", *GGUF)
    header = read_gguf(gguf_of(made))
    assert header.metadata["general.license"] == "apache-2.0"
    assert header.whole_number("llama.block_count") == 30


def test_an_ollama_directory_holds_what_ollama_needs(converted: Any, trained: Path) -> None:
    made = converted(trained / "run", "--format", "ollama", "--no-verify", "--quantization", "F16")
    assert sorted(file.name for file in made.iterdir()) == [
        "Modelfile",
        "README.md",
        "llamafarm.json",
        "out-F16.gguf",
    ]
    text = (made / "Modelfile").read_text()
    assert text.startswith("FROM ./out-F16.gguf\n")
    assert "Be brief." in text
    assert "TEMPLATE " not in text.replace("No TEMPLATE", "").replace("A TEMPLATE", "")


@pytest.mark.parametrize(("prompt", "expected"), [("Be kind.", "Be kind."), ("", None)])
def test_another_system_prompt_may_be_asked_for_and_none_too(
    prompt: str, expected: str | None, converted: Any, trained: Path
) -> None:
    argv = ("--format", "ollama", "--no-verify", "--system-prompt", prompt)
    text = (converted(trained / "run", *argv) / "Modelfile").read_text()
    assert "Be brief." not in text
    assert ("SYSTEM" in text) is (expected is not None)
    assert expected is None or expected in text


def test_the_readme_says_what_was_not_done(converted: Any, trained: Path) -> None:
    text = (
        converted(trained / "run", "--format", "ollama", "--no-verify") / "README.md"
    ).read_text()
    assert "The file was not compared with the model that was trained." in text
    assert "Ollama itself was not run: no server answered when this was made." in text


def test_where_ollama_answers_the_model_is_made_in_it_and_the_readme_says_so(
    converted: Any, trained: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    file = gguf_of(converted(trained / "run", *GGUF, name="first"))
    template = read_gguf(file).metadata["tokenizer.chat_template"]
    capfd.readouterr()
    with serving(OllamaDouble(template=template)) as double:
        monkeypatch.setenv("OLLAMA_HOST", double.address)
        made = converted(trained / "run", "--format", "ollama", "--no-verify")
    assert "Ollama answers: " in capfd.readouterr().out
    text = (made / "README.md").read_text()
    assert (
        "- Ollama 0.34.1 made the model, uses the template in it, and ended its answer itself."
    ) in text
    assert "Ollama itself was not run" not in text


@pytest.mark.slow
def test_a_gguf_file_that_is_copied_passes_against_itself(converted: Any, trained: Path) -> None:
    first = converted(trained / "adapter", *GGUF, name="first")
    made = converted(gguf_of(first), "--format", "ollama")
    values = json.loads((made / "parity.json").read_text())
    assert values["passed"] is True
    assert values["mean_kl"] == pytest.approx(0, abs=1e-6)
    assert values["prompts"] == "general questions, against first-Q8_0.gguf"
    assert values["file"] == "out-Q8_0.gguf"


def test_an_ollama_that_refuses_does_not_hide_that_the_directory_is_whole(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafarm import deploy
    from llamafarm.errors import RunError
    from llamafarm.export.ollama import OllamaServer
    from llamafarm.export.request import ConvertRequest

    def refuse(*_: object) -> None:
        raise RunError("the server hung up", hint="start it again")

    monkeypatch.setattr(deploy, "find_server", lambda: OllamaServer("http://here", "0.31.0"))
    monkeypatch.setattr(deploy, "create_and_ask", refuse)
    target = tmp_path / "out"
    request = ConvertRequest(str(trained / "run"), target, "ollama", verify=False)
    with pytest.raises(RunError) as refused:
        deploy.convert(request, on_work=lambda *_: None, on_note=lambda _: None)
    text = refused.value.render()
    assert f"{target} is complete; Ollama did not take it: the server hung up" in text
    assert "hint: start it again" in text
    assert (target / "Modelfile").is_file()
