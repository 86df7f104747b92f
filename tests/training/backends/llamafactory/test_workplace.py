"""The directory that LLaMA-Factory's trainer is started in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError
from llamafarm.models.config import FORBIDDEN_KEYS
from llamafarm.models.source import ModelSource
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.planning.plan import LlamaFactoryPlan, ModelPlan
from llamafarm.training.backends.llamafactory import workplace as module
from llamafarm.training.backends.llamafactory.snapshot import own_names
from llamafarm.training.backends.llamafactory.workplace import Workplace, fill_workplace, sides_of
from llamafarm.training.checkpoint import verify_checkpoint, write_checkpoint
from tests.planning.building import SMOLLM2
from tests.training.runs import tiny_data, tiny_plan


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> Any:
    return load_tokenizer(tiny_model_dir)


@pytest.fixture
def base(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A base model whose configuration names code, with such code beside it."""
    directory = tmp_path / "base"
    shutil.copytree(tiny_model_dir, directory)
    config = json.loads((directory / "config.json").read_text())
    config |= {
        "auto_map": {"AutoConfig": "evil.Config"},
        "_attn_implementation_internal": "somebody/kernel",
        "torch_dtype": "float16",
        "inner_config": {
            "model_type": "llama",
            "dtype": "float16",
            "auto_map": {"AutoModel": "evil.Model"},
            "parts": [{"trust_remote_code": True, "size": 3}],
        },
    }
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("evil.py", "pytorch_model.bin", "optimizer.pt", "notes.txt"):
        (directory / name).write_bytes(b"not for you")
    (directory / "model.safetensors.index.json").write_text("{}")
    return directory


def model_of(directory: Path, dtype: Any = "bfloat16") -> ModelPlan:
    return ModelPlan(ModelSource("m", "m", "local", directory, "f" * 64), SMOLLM2, dtype)


def keys_of(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from keys_of(item)


def place_in(directory: Path) -> Workplace:
    place = Workplace(directory / "llamafactory")
    place.clear()
    return place


def test_the_model_names_no_code_at_any_depth(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    place = place_in(tmp_path)
    place.write_model(model_of(base), tokenizer)
    config = json.loads((place.root / "model" / "config.json").read_text())
    assert not FORBIDDEN_KEYS & set(keys_of(config))
    assert config["inner_config"]["parts"] == [{"size": 3}]
    assert config["hidden_size"] == 32


def test_the_model_is_loaded_in_the_planned_type_at_any_depth(
    base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    place = place_in(tmp_path)
    place.write_model(model_of(base, "float32"), tokenizer)
    config = json.loads((place.root / "model" / "config.json").read_text())
    assert config["dtype"] == config["inner_config"]["dtype"] == "float32"
    assert "torch_dtype" not in set(keys_of(config))


def test_only_safetensors_are_linked_and_no_code_is_there(
    base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    place = place_in(tmp_path)
    place.write_model(model_of(base), tokenizer)
    model = place.root / "model"
    links = {p.name: p.resolve() for p in model.iterdir() if p.is_symlink()}
    assert links == {
        name: (base / name).resolve()
        for name in ("model.safetensors", "model.safetensors.index.json")
    }
    names = {p.name for p in model.iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not names & {"evil.py", "pytorch_model.bin", "optimizer.pt", "notes.txt"}


def test_the_model_loads_without_the_base_being_touched(
    base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    before = {p.name: p.read_bytes() for p in base.iterdir()}
    place = place_in(tmp_path)
    place.write_model(model_of(base, "float32"), tokenizer)
    (place.root / "model" / "model.safetensors.index.json").unlink()
    model = AutoModelForCausalLM.from_pretrained(place.root / "model", local_files_only=True)
    assert str(model.dtype) == "torch.float32"
    assert load_tokenizer(place.root / "model").get_vocab() == tokenizer.get_vocab()
    assert {p.name: p.read_bytes() for p in base.iterdir()} == before


def test_a_link_to_a_file_outside_of_the_model_is_refused(
    base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (base / "generation_config.json").unlink(missing_ok=True)
    (base / "generation_config.json").symlink_to(secret)
    place = place_in(tmp_path)
    with pytest.raises(ModelError, match="outside of the model"):
        place.write_model(model_of(base), tokenizer)
    assert not (place.root / "model").exists()


def test_filling_it_writes_all_that_the_trainer_is_started_on(
    tiny_model_dir: Path, tokenizer: Any, tmp_path: Path
) -> None:
    plan = replace(
        tiny_plan(tiny_model_dir, tmp_path / "run"),
        backend="llamafactory",
        llamafactory=LlamaFactoryPlan("sft", "lora", {}),
    )
    place, data, told = place_in(tmp_path), tiny_data(), []
    fill_workplace(place, plan, tokenizer, sides_of(data, has_eval=True), on_rows=told.append)
    assert {p.name for p in place.root.iterdir()} == {
        "train.yaml",
        "dataset_info.json",
        "train.jsonl",
        "eval.jsonl",
        "rows",
        "model",
    }
    assert data.eval is not None
    assert told == list(range(1, len(data.train) + len(data.eval) + 1))
    assert set(sides_of(data, has_eval=False)) == {"train"}


def test_a_job_names_its_arguments(tmp_path: Path) -> None:
    place = place_in(tmp_path)
    place.write_job(mode="train", threads=2)
    job = json.loads((place.root / "job.json").read_text())
    assert job == {"arguments": "train.yaml", "mode": "train", "threads": 2}


def filled(place: Workplace) -> None:
    for name in ("rows", "output", "model", "resume"):
        (place.root / name).mkdir()
        (place.root / name / "file").write_text("x")
    for name in ("train.jsonl", "eval.jsonl", "train.arrow", "train.yaml", "job.json"):
        (place.root / name).write_text("x")
    place.log.write_text("what was printed\n")


def test_a_new_start_clears_all_but_the_log(tmp_path: Path) -> None:
    place = place_in(tmp_path)
    filled(place)
    place.clear()
    assert {p.name for p in place.root.iterdir()} == {"train.yaml", place.log.name}
    assert place.log.read_text() == "what was printed\n"


def test_clearing_removes_the_links_and_not_what_they_lead_to(
    base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    place = place_in(tmp_path)
    place.write_model(model_of(base), tokenizer)
    place.clear()
    assert (base / "model.safetensors").stat().st_size > 0
    assert not (place.root / "model").exists()


def test_what_was_just_saved_stays_though_the_trainer_knows_it_by_another_path(
    tmp_path: Path,
) -> None:
    place = place_in(tmp_path / "real")
    for step in (3, 6):
        (place.root / "output" / f"checkpoint-{step}").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    linked = Workplace(tmp_path / "linked" / place.root.relative_to(tmp_path / "real"))
    linked.drop_saved(keep=place.root / "output" / "checkpoint-6")
    assert [p.name for p in (place.root / "output").iterdir()] == ["checkpoint-6"]
    linked.drop_saved()
    assert not list((place.root / "output").iterdir())


def test_when_the_run_is_over_what_a_person_may_read_stays(tmp_path: Path) -> None:
    place = place_in(tmp_path)
    filled(place)
    place.tidy()
    assert {p.name for p in place.root.iterdir()} == {
        "train.jsonl",
        "eval.jsonl",
        "train.yaml",
        place.log.name,
    }


# A resume.


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    files = [
        ("adapter_model.safetensors", b"weights"),
        ("adapter_config.json", b"{}"),
        ("llamafactory_optimizer.pt", b"optimizer"),
        ("llamafactory_trainer_state.json", b'{"global_step": 3}'),
        ("trainer_state.json", b"{}"),
    ]
    return write_checkpoint(tmp_path / "checkpoints", 3, iter(files)).checkpoint.path


def test_a_checkpoint_is_put_back_under_the_names_of_the_trainer(
    checkpoint: Path, tmp_path: Path
) -> None:
    place = place_in(tmp_path)
    assert place.put_back(checkpoint, own_names(checkpoint)) == "resume/checkpoint-3"
    back = place.root / "resume" / "checkpoint-3"
    assert {p.name: p.read_bytes() for p in back.iterdir()} == {
        "adapter_model.safetensors": b"weights",
        "adapter_config.json": b"{}",
        "optimizer.pt": b"optimizer",
        "trainer_state.json": b'{"global_step": 3}',
    }
    weights = "adapter_model.safetensors"
    assert (back / weights).samefile(checkpoint / weights)


def test_the_checkpoint_is_whole_after_the_workplace_is_cleared(
    checkpoint: Path, tmp_path: Path
) -> None:
    place = place_in(tmp_path)
    place.put_back(checkpoint, own_names(checkpoint))
    assert verify_checkpoint(checkpoint) == ""
    place.clear()
    assert verify_checkpoint(checkpoint) == ""


def test_where_files_cannot_be_linked_they_are_copied(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr(module.os, "link", refuse)
    place = place_in(tmp_path)
    place.put_back(checkpoint, own_names(checkpoint))
    copy = place.root / "resume" / "checkpoint-3" / "optimizer.pt"
    assert copy.read_bytes() == b"optimizer"
    assert not copy.samefile(checkpoint / "llamafactory_optimizer.pt")
