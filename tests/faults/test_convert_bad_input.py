"""`convert` on whatever is wrong: refused with place and remedy, nothing half-written left, and not
a byte of the source changed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from llamafarm import deploy
from llamafarm.cli.main import main
from llamafarm.export import k_quants, route
from llamafarm.export.parity import Certificate, Layer, PredictionFigures
from llamafarm.export.tolerances import Tolerance
from llamafarm.training.checkpoint import write_checkpoint
from tests.e2e.commands import run, run_until
from tests.export.architectures_for_tests import tiny_model
from tests.export.exported import adapter_on
from tests.faults.test_hostile_gguf import LIES
from tests.models.gguf_files import write_llama_gguf

GGUF = ("--format", "gguf", "--no-verify")
SAFETENSORS = ("--format", "safetensors")
WHOLE_OUTPUT = ["README.md", "out-Q8_0.gguf"]


@pytest.fixture(scope="module")
def trained(smollm2_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base/` and `adapter/` on it; do not write into it."""
    directory = tmp_path_factory.mktemp("trained")
    base = tiny_model(
        "LlamaForCausalLM",
        directory / "base",
        tokenizer=smollm2_tokenizer_dir,
        hidden_size=32,
        head_dim=8,
    )
    adapter_on(base, directory / "adapter")
    return directory


@pytest.fixture
def here(
    trained: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The working directory, with an `adapter/` that may be changed. No server, no converter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMAFARM_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("LLAMAFARM_STATE", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setattr(route, "find_converter", lambda: None)
    shutil.copytree(trained / "adapter", tmp_path / "adapter")
    return tmp_path


def contents(directory: Path) -> dict[str, str]:
    """Every file and directory, hidden ones too, with what it holds."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
        )
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def refused(here: Path, trained: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `convert` with a refusal expected: what it said, when everything is as it was."""

    def convert(*argv: str, code: int = 2) -> str:
        before, given = contents(here), contents(trained)
        found = main(["convert", *argv])
        said = capfd.readouterr()
        assert found == code, said.err
        assert "error: " in said.err
        assert "hint: " in said.err
        assert "Traceback" not in said.err
        assert said.out == ""
        assert contents(here) == before
        assert contents(trained) == given
        return said.err

    return convert


@pytest.fixture
def converted(here: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `convert` to a good end: what it printed."""

    def convert(*argv: str) -> str:
        code = main(["convert", *argv])
        said = capfd.readouterr()
        assert code == 0, said.err
        assert not list(here.rglob(".tmp-*"))
        return said.out

    return convert


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def made_run(here: Path) -> Path:
    """What a run left behind that has not come to its end."""
    files = [(path.name, path.read_bytes()) for path in sorted((here / "adapter").iterdir())]
    (here / "run" / "checkpoints").mkdir(parents=True)
    write_checkpoint(here / "run" / "checkpoints", 3, files)
    for name in ("run.json", "strategy.yaml"):
        (here / "run" / name).write_text("{}")
    return here / "run"


# What is no model.


def test_a_directory_that_is_not_there_is_named_with_the_nearest_one(refused: Any) -> None:
    said = refused("./adaptor", "out", *GGUF)
    assert "./adaptor does not exist" in said
    assert "adapter`?" in said


def test_an_empty_directory_holds_no_model(refused: Any, here: Path) -> None:
    (here / "empty").mkdir()
    said = refused("empty", "out", *GGUF)
    assert "empty holds no model" in said
    assert "final_model/" in said


def test_a_file_that_is_no_gguf_is_no_model(refused: Any, here: Path) -> None:
    (here / "notes.txt").write_text("x")
    assert "notes.txt is a file, but not a .gguf" in refused("./notes.txt", "out", *GGUF)


def test_a_run_without_an_end_names_its_newest_checkpoint(refused: Any, here: Path) -> None:
    made_run(here)
    said = refused("run", "out", *GGUF)
    assert "has no final_model yet" in said
    assert "checkpoint-3" in said


@pytest.mark.parametrize("kind", [GGUF, SAFETENSORS])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda c: (c / "adapter_model.safetensors").write_bytes(b"x"), "has 1 bytes instead of"),
        (lambda c: (c / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda c: (c / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda c: (c / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda c: change(c / "adapter_config.json", r=4, x=1), "adapter_config.json"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_not_used(
    damage: Callable[[Path], object], said: str, kind: tuple[str, ...], refused: Any, here: Path
) -> None:
    checkpoint = made_run(here) / "checkpoints" / "checkpoint-3"
    damage(checkpoint)
    found = refused("run/checkpoints/checkpoint-3", "out", *kind)
    assert f"{checkpoint} cannot be used: " in found
    assert said in found


def test_a_model_without_a_tokenizer_says_so(refused: Any, here: Path, trained: Path) -> None:
    shutil.copytree(trained / "base", here / "base", ignore=shutil.ignore_patterns("tokenizer*"))
    assert "the tokenizer is missing (tokenizer.json)" in refused("base", "out", *GGUF)


def test_a_tokenizer_that_is_broken_is_named(refused: Any, here: Path) -> None:
    (here / "adapter" / "tokenizer.json").write_text("{")
    assert "tokenizer.json" in refused("adapter", "out", *GGUF)


# Adapters.


@pytest.mark.parametrize("base", ["./gone", "nobody/nothing-1b"])
def test_a_base_that_cannot_be_had_is_named(base: str, refused: Any, here: Path) -> None:
    change(here / "adapter" / "adapter_config.json", base_model_name_or_path=base)
    assert base in refused("adapter", "out", *GGUF)


@pytest.mark.parametrize("kind", [GGUF, SAFETENSORS])
def test_every_tensor_that_does_not_fit_is_named(
    kind: tuple[str, ...], refused: Any, here: Path, smollm2_tokenizer_dir: Path
) -> None:
    other = tiny_model(
        "LlamaForCausalLM",
        here / "other",
        tokenizer=smollm2_tokenizer_dir,
        hidden_size=48,
        head_dim=8,
    )
    change(here / "adapter" / "adapter_config.json", base_model_name_or_path=str(other))
    said = refused("adapter", "out", *kind)
    assert "does not fit its base: 6 tensors differ" in said
    for layer in (0, 1):
        for name in ("q_proj", "v_proj", "o_proj"):
            assert f"model.layers.{layer}.self_attn.{name}.weight" in said
    assert "32 x 32 in the adapter, 32 x 48 in the base" in said


def test_an_adapter_of_another_kind_is_refused(refused: Any, here: Path) -> None:
    change(here / "adapter" / "adapter_config.json", peft_type="IA3")
    assert "IA3 adapter, which cannot be merged" in refused("adapter", "out", *GGUF)


def test_weights_that_are_cut_short_are_refused(refused: Any, here: Path) -> None:
    file = here / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "adapter_model.safetensors is not a readable" in refused("adapter", "out", *GGUF)


def test_weights_that_diverged_are_refused_though_the_file_was_begun(
    refused: Any, here: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = here / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    last = sorted(tensors)[-1]
    save_file({**tensors, last: torch.full_like(tensors[last], torch.nan)}, file)
    assert "not finite (NaN or infinity)" in refused("adapter", "out", *GGUF)


def test_an_architecture_that_nobody_writes_gets_the_list_of_those_that_are(
    refused: Any, here: Path, trained: Path
) -> None:
    shutil.copytree(trained / "base", here / "base")
    change(here / "base" / "config.json", architectures=["OddForCausalLM"], model_type="odd")
    said = refused("base", "out", *GGUF)
    assert "llamafarm does not write OddForCausalLM itself" in said
    for name in ("LlamaForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM"):
        assert name in said
    assert "LLAMA_CPP_PATH" in said


# GGUF files.


@pytest.mark.parametrize("length", [0, 3, 100, 5000, -1])
def test_a_gguf_file_that_is_cut_short_is_refused(length: int, refused: Any, here: Path) -> None:
    write_llama_gguf(here / "m.gguf", pre="smollm")
    (here / "m.gguf").write_bytes((here / "m.gguf").read_bytes()[:length])
    assert "m.gguf is not a readable GGUF file" in refused("m.gguf", "out", *GGUF)


@pytest.mark.parametrize("lie", LIES)
def test_a_gguf_file_that_lies_is_refused(lie: str, refused: Any, here: Path) -> None:
    data, what = LIES[lie]
    (here / "m.gguf").write_bytes(data)
    assert what in refused("m.gguf", "out", *GGUF)


def test_a_gguf_file_that_no_engine_loads_is_refused(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole file with a tensor left out: only llama.cpp itself can tell."""
    write_llama_gguf(here / "m.gguf", pre="smollm", leave_out="blk.1.attn_q")
    before = contents(here)
    assert main(["convert", "m.gguf", "out", "--format", "gguf"]) == 2
    said = capfd.readouterr().err
    assert "error: llama.cpp cannot load" in said
    assert "hint: " in said
    assert contents(here) == before


# The target.


def test_a_target_that_exists_is_replaced_only_when_asked(
    refused: Any, converted: Any, here: Path
) -> None:
    converted("adapter", "out", *GGUF)
    assert "add --overwrite to replace it" in refused("adapter", "out", *GGUF)
    converted("adapter", "out", "--format", "safetensors", "--overwrite")
    assert (here / "out" / "model.safetensors").is_file()
    assert not list((here / "out").glob("*.gguf"))


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_target_with_anything_else_in_it_is_left_alone(
    flags: list[str], refused: Any, converted: Any, here: Path
) -> None:
    converted("adapter", "out", *GGUF)
    (here / "out" / "thesis.txt").write_text("years of work")
    said = refused("adapter", "out", *GGUF, *flags)
    assert "holds what convert did not write: thesis.txt" in said


@pytest.mark.parametrize("target", ["adapter", "adapter/out", "adapter/../adapter", "."])
def test_source_and_target_do_not_lie_in_one_another(target: str, refused: Any) -> None:
    assert "lie in one another" in refused("adapter", target, *GGUF, "--overwrite")


def test_the_directory_of_a_gguf_file_is_no_target_for_it(refused: Any, here: Path) -> None:
    (here / "models").mkdir()
    write_llama_gguf(here / "models" / "m.gguf", pre="smollm")
    for kind in (GGUF, SAFETENSORS):
        said = refused("models/m.gguf", "models", *kind, "--overwrite")
        assert "lie in one another" in said


def test_the_base_of_an_adapter_is_no_target(refused: Any, trained: Path) -> None:
    said = refused("adapter", str(trained / "base"), *SAFETENSORS, "--overwrite")
    assert "lie in one another" in said


def test_a_target_that_is_a_file_is_refused(refused: Any, here: Path) -> None:
    (here / "out").write_text("x")
    assert "is not a directory" in refused("adapter", "out", *GGUF, "--overwrite")
    assert "cannot be written" in refused("adapter", "out/deeper", *GGUF)


def test_a_target_whose_name_is_too_long_is_refused(refused: Any) -> None:
    assert "cannot be written" in refused("adapter", "x" * 300, *GGUF)


# The disk.


@pytest.mark.parametrize("kind", [GGUF, SAFETENSORS])
def test_a_disk_without_room_is_known_before_a_byte_is_written(
    kind: tuple[str, ...], refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    said = refused("adapter", "out", *kind, code=1)
    assert "0.00 GiB are free there" in said
    assert ("--quantization" in said) is (kind == GGUF)


class FullDisk:
    """A disk that has room for so many more bytes."""

    def __init__(self, room: int) -> None:
        self._room, self._write = room, os.write

    def write(self, descriptor: int, data: Any) -> int:
        self._room -= memoryview(data).nbytes
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(descriptor, data)


@pytest.mark.parametrize("room", [0, 100_000, 1_000_000])
@pytest.mark.parametrize("kind", [GGUF, SAFETENSORS, ("--format", "ollama", "--no-verify")])
def test_a_disk_that_fills_up_leaves_nothing_and_the_next_try_works(
    kind: tuple[str, ...],
    room: int,
    refused: Any,
    converted: Any,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    converted("adapter", "out", *kind)
    whole = contents(here / "out")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", FullDisk(room).write)
        said = refused("adapter", "out", *kind, "--overwrite", code=1)
    assert "the disk is full: out could not be written, and nothing of it was kept" in said
    converted("adapter", "out", *kind, "--overwrite")
    assert contents(here / "out") == whole


# What is asked for.


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("my model", "--name my-model"),
        ("me/mine:v2", "--name mine; a namespace or a tag is given afterwards"),
        ("../escape", "--name escape"),
        (".hidden", "--name hidden"),
        ("a..b", "--name a.b"),
        ("", "--name model"),
        ("x" * 200, "80 are allowed"),
    ],
)
def test_a_name_that_ollama_does_not_take_gets_the_nearest(
    name: str, hint: str, refused: Any
) -> None:
    assert hint in refused("adapter", "out", *GGUF, "--name", name)


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("my model", "my-model-Q8_0.gguf"),
        ("deep/down/Fieber 2.0", "Fieber-2.0-Q8_0.gguf"),
        ("v1.5", "v1.5-Q8_0.gguf"),
        ("熱", "model-Q8_0.gguf"),
    ],
)
def test_a_target_of_any_name_becomes_a_model_with_a_proper_one(
    target: str, file: str, converted: Any, here: Path
) -> None:
    converted("adapter", target, *GGUF)
    assert (here / target / file).is_file()


def test_a_name_may_be_given_apart_from_the_target_s(converted: Any, here: Path) -> None:
    converted("adapter", "out", "--format", "ollama", "--no-verify", "--name", "fever.v2")
    assert "FROM ./fever.v2-Q8_0.gguf" in (here / "out" / "Modelfile").read_text()


def test_an_unknown_format_gets_the_nearest(refused: Any) -> None:
    assert "did you mean `ollama`?" in refused("adapter", "out", "--format", "olama")


def test_an_unknown_type_gets_the_nearest_and_the_list(refused: Any) -> None:
    said = refused("adapter", "out", *GGUF, "--quantization", "q4_k")
    assert "there is no file type 'q4_k'; did you mean Q4_K_M?" in said
    assert "F16" in said


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        ((*SAFETENSORS, "--quantization", "f16"), "--quantization"),
        ((*SAFETENSORS, "--name", "x"), "--name"),
        ((*SAFETENSORS, "--system-prompt", "x"), "--system-prompt"),
        ((*GGUF, "--system-prompt", "x"), "--system-prompt"),
    ],
)
def test_a_flag_that_cannot_take_effect_is_an_error(
    argv: tuple[str, ...], flag: str, refused: Any
) -> None:
    said = refused("adapter", "out", *argv)
    assert "the command line has 1 problem" in said
    assert f"  {flag}  " in said


def test_all_flags_that_cannot_take_effect_are_told_at_once(refused: Any) -> None:
    said = refused(
        "adapter", "out", *SAFETENSORS, "--name", "x", "--quantization", "f16",
        "--system-prompt", "x",
    )  # fmt: skip
    assert "the command line has 3 problems" in said


def test_a_system_prompt_that_ollama_would_read_otherwise_is_refused(refused: Any) -> None:
    argv = ("--format", "ollama", "--no-verify", "--system-prompt", "zero\u200bwidth")
    assert "Ollama drops U+200B" in refused("adapter", "out", *argv)


# What is not installed.


def test_a_type_that_needs_an_engine_says_how_to_get_one(
    refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(k_quants, "find_engine", lambda: None)
    said = refused("adapter", "out", *GGUF, "--quantization", "q4_k_m")
    assert "pip install" in said


def test_a_certificate_without_the_engine_is_refused_before_anything_is_written(
    refused: Any, converted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else there(name)
    )
    assert "pip install 'llamafarm[verify]'" in refused("adapter", "out", "--format", "gguf")
    converted("adapter", "out", *GGUF)


# The certificate, and signals.


def test_a_file_that_is_not_the_trained_model_is_not_kept(
    refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = PredictionFigures(1, 0.5, 1.0, 1, 0, 0)
    layers = (Layer("predictions", 1, 1, "the file says another token"),)
    bad = Certificate("Q8_0", layers, figures, Tolerance(0.01, 1.0, 0.01), "made up", 1)
    monkeypatch.setattr(deploy, "certify_stage", lambda *_: bad)
    said = refused("adapter", "out", "--format", "gguf", code=3)
    assert "out-Q8_0.gguf is not the model that was trained; nothing was kept" in said
    assert "the file says another token" in said


def began(directory: Path) -> Callable[[], bool]:
    """Whether something has been written, in a directory of another name."""
    return lambda: any(
        file.stat().st_size for stage in directory.glob(".tmp-out-*") for file in stage.iterdir()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_conversion_that_is_stopped_leaves_no_target_and_the_next_one_works(
    sent: signal.Signals, code: int, here: Path
) -> None:
    before = contents(here)
    argv = ["convert", "adapter", "out", "--format", "gguf"]
    stopped, error = run_until(argv, here, began(here), sent)
    assert stopped == code, error
    assert not (here / "out").exists()
    assert "Traceback" not in error
    if sent is not signal.SIGKILL:
        assert "stopped" in error
        assert contents(here) == before
    run(*argv, "--no-verify", cwd=here)
    assert sorted(file.name for file in (here / "out").iterdir()) == WHOLE_OUTPUT
    assert not list(here.glob(".tmp-*"))


def engines(directory: Path) -> list[psutil.Process]:
    """Processes of llama.cpp that were started in a directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "llamafarm.models.llama_cpp_process" in process.cmdline():
                found += [process] if process.cwd() == str(directory) else []
    return found


@pytest.mark.slow
def test_a_certificate_that_is_stopped_takes_its_engine_along(here: Path) -> None:
    before = contents(here)
    argv = ["convert", "adapter", "out", "--format", "ollama"]
    stopped, error = run_until(argv, here, lambda: bool(engines(here)), signal.SIGTERM)
    assert stopped == 143, error
    assert "stopped: nothing was kept of what was being made" in error
    assert contents(here) == before
    gone, alive = psutil.wait_procs(engines(here), timeout=20)
    assert not alive, gone
