"""The converter found, asked and run: small stand-ins for its program, and the real one."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError, RunError, UserError
from llamafarm.export.llama_cpp_converter import (
    Converter,
    convert,
    find_converter,
    listed_architectures,
)
from llamafarm.export.llama_cpp_source import installed_sources
from llamafarm.models.gguf_file import read_gguf

MakeConverter = Callable[[str], Converter]

# Says what it was started with; what it was given lies open only while it runs.
TELLS_ALL = """
import json, os, pathlib, sys
options = dict(word[2:].split("=", 1) for word in sys.argv[2:])
model = pathlib.Path(sys.argv[1])
print("INFO:hf-to-gguf:a line\\rand a second", file=sys.stderr, flush=True)
pathlib.Path(options["outfile"]).write_text(json.dumps({
    "options": options,
    "model": model.name,
    "config": json.loads((model / "config.json").read_text()),
    "files": sorted(file.name for file in model.iterdir()),
    "weights": os.path.realpath(model / "model.safetensors"),
    "environment": dict(os.environ),
    "stdin": sys.stdin.read(),
    "session": os.getsid(0) == os.getpid(),
}))
"""
FAILS = """
import sys
print("INFO:hf-to-gguf:Loading model: model", file=sys.stderr)
print("WARNING:hf-to-gguf:no sentencepiece model", file=sys.stderr)
print("Writing:  10%|#         | 1/10", file=sys.stderr)
raise NotImplementedError("BPE pre-tokenizer was not recognized")
"""
# Starts a process of its own, tells both ids, and waits for ever.
HANGS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def make_converter(tmp_path: Path) -> MakeConverter:
    """A converter whose program is this text."""

    def make(program: str) -> Converter:
        directory = tmp_path / "llama.cpp"
        (directory / "gguf-py" / "gguf").mkdir(parents=True)
        (directory / "convert_hf_to_gguf.py").write_text(program)
        return Converter(directory, "a stand-in")

    return make


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """The files of a model that brings code; the weights are none."""
    directory = tmp_path / "my-model"
    directory.mkdir()
    config = {"architectures": ["A"], "auto_map": {"AutoConfig": "code.Config"}, "hidden_size": 8}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}})
    )
    for name in ("model.safetensors", "tokenizer.json", "code.py", "pytorch_model.bin"):
        (directory / name).write_text("{}")
    return directory


def run(model: Path, target: Path, converter: Converter, **options: Any) -> list[str]:
    lines: list[str] = []
    convert(model, target, "BF16", converter, lines.append, **options)
    return lines


def visible(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def test_nothing_is_found_where_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_CPP_PATH", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert find_converter() is None


def test_the_checkout_that_is_named_goes_before_the_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_converter: MakeConverter
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("LLAMA_CPP_PATH", raising=False)
    checkout = make_converter("").directory
    (installed_sources() / "gguf-py" / "gguf").mkdir(parents=True)
    (installed_sources() / "convert_hf_to_gguf.py").touch()
    installed = find_converter()
    assert installed == Converter(installed_sources(), "llama-cpp-python==0.3.36")
    monkeypatch.setenv("LLAMA_CPP_PATH", str(checkout))
    named = find_converter()
    assert named is not None
    assert named.script == checkout / "convert_hf_to_gguf.py"


@pytest.mark.parametrize("there", ["nothing", "a script without gguf-py"])
def test_a_wrong_llama_cpp_path_is_an_error_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    if there != "nothing":
        (tmp_path / "convert_hf_to_gguf.py").touch()
    monkeypatch.setenv("LLAMA_CPP_PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"LLAMA_CPP_PATH is .* holds no convert_hf_to_gguf"
    ) as fault:
        find_converter()
    assert "checkout" in fault.value.hint


def test_the_architectures_are_read_from_the_table_which_is_not_run(
    make_converter: MakeConverter,
) -> None:
    converter = make_converter('@ModelBase.register("Old")\nclass A: pass\n')
    assert listed_architectures(converter) == {"Old"}
    (converter.directory / "conversion").mkdir()
    (converter.directory / "conversion" / "__init__.py").write_text(
        "raise SystemExit(1)\n"
        'TEXT_MODEL_MAP: dict[str, str] = {"NewForCausalLM": "new", **more}\n'
        'MMPROJ_MODEL_MAP = {"Pictures": "new"}\n'
    )
    assert listed_architectures(converter) == {"NewForCausalLM"}


def test_the_architectures_of_a_one_file_converter_are_those_it_registers(
    make_converter: MakeConverter,
) -> None:
    converter = make_converter(
        '@ModelBase.register("OneForCausalLM", "TwoForCausalLM")\n'
        '@other("Three")\n'
        "class Model(TextModel): pass\n"
    )
    assert listed_architectures(converter) == {"OneForCausalLM", "TwoForCausalLM"}


def test_a_table_that_is_no_python_is_a_broken_checkout(make_converter: MakeConverter) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        listed_architectures(make_converter("<<<<<<< HEAD\n"))


def test_the_converter_gets_a_model_without_code_and_no_network(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_converter: MakeConverter,
    model_dir: Path,
) -> None:
    for name in ("PYTHONPATH", "NO_LOCAL_GGUF", "HF_TOKEN", "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, "1")
    target = tmp_path / "{out}.gguf"
    lines = run(model_dir, target, make_converter(TELLS_ALL))
    got = json.loads(target.read_text())
    assert got["config"] == {"architectures": ["A"], "hidden_size": 8}
    assert got["files"] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert got["weights"] == str(model_dir / "model.safetensors")
    environment = got["environment"]
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert not {"PYTHONPATH", "NO_LOCAL_GGUF", "HF_TOKEN", "PYTHONSAFEPATH"} & set(environment)
    assert (got["options"]["outtype"], got["options"]["model-name"]) == ("bf16", "my-model")
    assert (got["model"], got["stdin"], got["session"]) == ("model", "", True)
    assert lines == ["INFO:hf-to-gguf:a line", "and a second"]
    assert visible(tmp_path) == {"llama.cpp", "my-model", "{out}.gguf"}


def test_the_file_can_have_another_name_and_replaces_an_older_one(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path
) -> None:
    target = tmp_path / "out.gguf"
    target.write_text("old")
    run(model_dir, target, make_converter(TELLS_ALL), name="--verbose")
    assert json.loads(target.read_text())["options"]["model-name"] == "--verbose"


def test_all_parts_of_split_weights_are_there_and_a_stale_index_is_not(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path
) -> None:
    converter = make_converter(TELLS_ALL)
    index = model_dir / "model.safetensors.index.json"
    parts = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
    index.write_text(json.dumps({"weight_map": dict(zip("ab", parts, strict=True))}))
    run(model_dir, tmp_path / "one.gguf", converter)
    assert index.name not in json.loads((tmp_path / "one.gguf").read_text())["files"]
    (model_dir / "model.safetensors").unlink()
    for part in parts:
        (model_dir / part).touch()
    run(model_dir, tmp_path / "two.gguf", converter)
    assert {*parts, index.name} < set(json.loads((tmp_path / "two.gguf").read_text())["files"])


@pytest.mark.parametrize("name", ["../weights.safetensors", "config.json"])
def test_an_index_that_names_a_file_elsewhere_is_refused(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path, name: str
) -> None:
    (model_dir / "model.safetensors").unlink()
    (tmp_path / "weights.safetensors").touch()
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="its index names"):
        run(model_dir, tmp_path / "out.gguf", make_converter(TELLS_ALL))
    assert not (tmp_path / "out.gguf").exists()


def test_a_directory_that_is_no_model_is_refused(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path
) -> None:
    (model_dir / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="not a complete model"):
        run(model_dir, tmp_path / "out.gguf", make_converter(TELLS_ALL))


def test_a_failure_is_told_in_the_converters_last_meaningful_words(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path
) -> None:
    with pytest.raises(RunError) as fault:
        run(model_dir, tmp_path / "out.gguf", make_converter(FAILS))
    first, *said = fault.value.summary.splitlines()
    assert re.search(r"a stand-in\) failed \(exit code 1\) on .*my-model; it said:", first)
    assert said == [
        "  WARNING:hf-to-gguf:no sentencepiece model",
        "  NotImplementedError: BPE pre-tokenizer was not recognized",
    ]
    assert "LLAMA_CPP_PATH" in fault.value.hint
    assert visible(tmp_path) == {"llama.cpp", "my-model"}


def test_a_converter_that_ends_without_a_file_has_failed(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path
) -> None:
    with pytest.raises(RunError, match="exit code 0"):
        run(model_dir, tmp_path / "out.gguf", make_converter("print('done')"))


def test_a_converter_that_the_system_killed_is_told_so(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path
) -> None:
    program = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(RunError, match="was ended by SIGKILL") as fault:
        run(model_dir, tmp_path / "out.gguf", make_converter(program))
    assert "memory" in fault.value.hint


def test_a_full_disk_is_told_so(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path
) -> None:
    program = "import errno, os; raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"
    with pytest.raises(RunError, match="No space left") as fault:
        run(model_dir, tmp_path / "out.gguf", make_converter(program))
    assert "free some space" in fault.value.hint


def test_ctrl_c_ends_the_converter_and_what_it_started(
    tmp_path: Path, make_converter: MakeConverter, model_dir: Path
) -> None:
    ids: list[int] = []

    def interrupt(line: str) -> None:
        ids.extend(int(word) for word in line.split())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(model_dir, tmp_path / "out.gguf", "F16", make_converter(HANGS), interrupt)
    assert len(ids) == 2
    deadline = time.monotonic() + 30
    while any(is_running(number) for number in ids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(is_running(number) for number in ids)
    assert visible(tmp_path) == {"llama.cpp", "my-model"}


def is_running(process: int) -> bool:
    """A process that ended and that nobody has asked about yet does not run."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.is_file() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
def real_converter() -> Converter:
    converter = find_converter()
    if converter is None:
        pytest.skip("llama.cpp's converter is not installed, and LLAMA_CPP_PATH is not set")
    return converter


@pytest.fixture
def gpt2_dir(smollm2_tokenizer_dir: Path, tmp_path: Path) -> Path:
    """A random GPT-2 with the real tokenizer, and with code that must not run."""
    import shutil

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    directory = tmp_path / "tiny-gpt2"
    config = GPT2Config(
        vocab_size=49152,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        n_ctx=128,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(directory)
    for file in smollm2_tokenizer_dir.iterdir():
        shutil.copy(file, directory)
    trap = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass T: pass\n"
    (directory / "trap.py").write_text(trap)
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((directory / name).read_text())
        values["auto_map"] = {"AutoConfig": "trap.T", "AutoTokenizer": ["trap.T", "trap.T"]}
        (directory / name).write_text(json.dumps(values))
    return directory


@pytest.mark.slow
def test_a_model_of_the_real_converter_predicts_what_transformers_predicts(
    real_converter: Converter, gpt2_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp", reason="the llama.cpp engine is not installed")
    import torch
    from transformers import GPT2LMHeadModel

    from llamafarm.models.llama_cpp import LlamaCpp

    assert "GPT2LMHeadModel" in listed_architectures(real_converter)
    target = tmp_path / "gpt2.gguf"
    convert(gpt2_dir, target, "F32", real_converter, lambda line: None, name="Tiny GPT-2")
    assert not (tmp_path / "ran").exists()
    made = read_gguf(target)
    assert (made.architecture, made.metadata["general.name"]) == ("gpt2", "Tiny GPT-2")
    assert made.metadata["tokenizer.ggml.pre"] == "smollm"
    text = "Sixty to a hundred beats a minute, <|im_end|>é"
    with LlamaCpp(target, context_tokens=64, threads=1) as engine:
        ids = engine.tokenize(text)
        found = engine.next_token(ids, likeliest=20).log_probabilities
    model = GPT2LMHeadModel.from_pretrained(gpt2_dir, trust_remote_code=False).eval()
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], -1)
    # The engine keeps keys and values in half precision; a wrong layout is off by whole units.
    assert next(iter(found)) == int(expected.argmax())
    assert max(abs(value - float(expected[token])) for token, value in found.items()) < 0.02
