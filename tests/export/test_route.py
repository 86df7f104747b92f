from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError, UserError
from llamafarm.export.llama_cpp_source import installed_sources
from llamafarm.export.route import export_route

OTHER_TOKENIZER = {"version": "1.0", "added_tokens": [], "model": {"type": "WordPiece"}}


@pytest.fixture(autouse=True)
def no_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account in which nothing was installed."""
    monkeypatch.delenv("LLAMA_CPP_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


def install(*architectures: str) -> None:
    """A converter that lists these, where setup would put it."""
    directory = installed_sources()
    (directory / "gguf-py" / "gguf").mkdir(parents=True)
    (directory / "conversion").mkdir()
    (directory / "convert_hf_to_gguf.py").touch()
    table = dict.fromkeys(architectures, "module")
    (directory / "conversion" / "__init__.py").write_text(f"TEXT_MODEL_MAP = {table!r}\n")


@pytest.fixture
def model_dir(tmp_path: Path, smollm2_tokenizer_dir: Path) -> Path:
    """A model without weights, with the real tokenizer; its config.json is written by the test."""
    return Path(shutil.copytree(smollm2_tokenizer_dir, tmp_path / "model"))


def configure(model: Path, *architectures: str, **more: Any) -> Path:
    (model / "config.json").write_text(json.dumps({"architectures": list(architectures), **more}))
    return model


def test_a_model_that_llamafarm_writes_needs_nothing_else(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_PATH", "/nowhere")
    route = export_route(configure(model_dir, "LlamaForCausalLM"))
    assert (route.kind, route.architecture, route.hint) == ("own", "LlamaForCausalLM", "")


def test_another_architecture_has_no_route_and_what_would_give_it_one_is_told(
    model_dir: Path,
) -> None:
    route = export_route(configure(model_dir, "GPT2LMHeadModel"))
    assert (route.kind, route.architecture) == ("none", "GPT2LMHeadModel")
    assert "GPT2LMHeadModel" in route.detail
    assert "LlamaForCausalLM" in route.detail
    assert "setup" in route.hint
    assert "LLAMA_CPP_PATH" in route.hint


def test_another_architecture_goes_through_the_converter_that_lists_it(model_dir: Path) -> None:
    install("GPT2LMHeadModel")
    route = export_route(configure(model_dir, "GPT2LMHeadModel"))
    assert (route.kind, route.hint) == ("llama.cpp", "")
    assert "llama-cpp-python==0.3.36" in route.detail


def test_an_architecture_that_nobody_lists_has_no_route(model_dir: Path) -> None:
    install("GPT2LMHeadModel")
    route = export_route(configure(model_dir, "NewForCausalLM"))
    assert route.kind == "none"
    assert "does not list it either" in route.detail
    assert "newer llama.cpp" in route.hint


def test_a_tokenizer_of_another_kind_goes_through_the_converter(model_dir: Path) -> None:
    (model_dir / "tokenizer.json").write_text(json.dumps(OTHER_TOKENIZER))
    configure(model_dir, "LlamaForCausalLM")
    refused = export_route(model_dir)
    assert refused.kind == "none"
    assert "byte-level BPE" in refused.hint
    install("LlamaForCausalLM")
    route = export_route(model_dir)
    assert route.kind == "llama.cpp"
    assert "tokenizer" in route.detail


def test_the_language_model_inside_is_what_the_converter_goes_by(model_dir: Path) -> None:
    install("InnerForCausalLM")
    configure(
        model_dir,
        "OuterForCausalLM",
        text_config={"architectures": ["InnerForCausalLM"]},
    )
    route = export_route(model_dir)
    assert (route.kind, route.architecture) == ("llama.cpp", "InnerForCausalLM")


def test_a_model_that_names_no_architecture_has_no_route(model_dir: Path) -> None:
    install("GPT2LMHeadModel")
    route = export_route(configure(model_dir))
    assert (route.kind, route.architecture) == ("none", "")
    assert "names no architecture" in route.detail


def test_a_wrong_llama_cpp_path_is_an_error_where_it_is_needed(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_PATH", "/nowhere")
    with pytest.raises(UserError, match="LLAMA_CPP_PATH is /nowhere"):
        export_route(configure(model_dir, "GPT2LMHeadModel"))


def test_a_directory_without_a_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        export_route(tmp_path)


def test_the_route_is_known_without_torch() -> None:
    code = (
        "import sys, llamafarm.export.route;"
        "print({'torch', 'transformers', 'gguf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
