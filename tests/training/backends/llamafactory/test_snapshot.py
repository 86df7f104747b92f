"""What LLaMA-Factory's trainer saved, as a checkpoint of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llamafarm.errors import RunError
from llamafarm.models.record import RECORD_FILE
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.training.backends.llamafactory.snapshot import TrainerSnapshot, own_names
from llamafarm.training.checkpoint import STATE_FILE, verify_checkpoint, write_checkpoint
from llamafarm.training.state import LoopState
from tests.training.runs import TEMPLATE, tiny_plan

STATE = LoopState(
    step=3,
    epoch=0.6,
    tokens=700,
    loss_sum=1 / 3,
    base_eval_loss=math.nan,
    best_step=2,
    best_metric=1.1,
    recent_losses=[0.1, 0.2],
)
OWN = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> Any:
    return load_tokenizer(tiny_model_dir)


def trainer_directory(directory: Path, **tensors: torch.Tensor) -> Path:
    """As its trainer writes one for an adapter, with files that are of no use here."""
    directory.mkdir()
    weights = tensors or {"lora_A.weight": torch.arange(6.0).reshape(2, 3)}
    save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"base_model_name_or_path": "model", "inference_mode": False, "r": 4}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    for name in OWN:
        (directory / name).write_bytes(f"content of {name}".encode())
    for name in ("training_args.bin", "README.md", "tokenizer.json", "chat_template.jinja"):
        (directory / name).write_bytes(b"not used")
    return directory


@pytest.fixture
def snapshot(tiny_model_dir: Path, tokenizer: Any, tmp_path: Path) -> TrainerSnapshot:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run")
    found = TrainerSnapshot(plan, tokenizer, {"seed": "42"})
    found.saved = trainer_directory(tmp_path / "checkpoint-3")
    return found


def contents(files: Any) -> dict[str, bytes]:
    """Read one at a time, as a checkpoint is written."""
    return {name: bytes(data) for name, data in files}


def test_a_checkpoint_has_weights_tokenizer_state_and_what_the_trainer_needs(
    snapshot: TrainerSnapshot,
) -> None:
    assert snapshot.saved is not None
    found = contents(snapshot.files(STATE))
    assert found.keys() >= {"tokenizer.json", "tokenizer_config.json", RECORD_FILE}
    weights = snapshot.saved / "adapter_model.safetensors"
    assert found["adapter_model.safetensors"] == weights.read_bytes()
    for name in OWN:
        assert found[f"llamafactory_{name}"] == f"content of {name}".encode()
    assert not found.keys() & {"training_args.bin", "README.md", "optimizer.pt", "scaler.pt"}
    # Of the tokenizer and the template this project's files count, not the trainer's.
    assert found["tokenizer.json"] != b"not used"
    assert found["chat_template.jinja"] == TEMPLATE.encode()


def test_the_model_files_lack_what_only_a_resume_needs(snapshot: TrainerSnapshot) -> None:
    both = contents(snapshot.files(STATE))
    model = contents(snapshot.model_files())
    assert both.keys() - model.keys() == {STATE_FILE, *(f"llamafactory_{name}" for name in OWN)}
    assert both.keys() - model.keys() <= set(snapshot.resume_only)


def test_the_adapter_names_the_base_model_and_no_directory_of_the_run(
    snapshot: TrainerSnapshot, tiny_model_dir: Path
) -> None:
    config = json.loads(contents(snapshot.model_files())["adapter_config.json"])
    assert config == {
        "base_model_name_or_path": str(tiny_model_dir),
        "inference_mode": True,
        "r": 4,
    }


def test_a_whole_model_has_its_configuration_with_the_cache_on(
    tiny_model_dir: Path, tokenizer: Any, tmp_path: Path
) -> None:
    plan = tiny_plan(tiny_model_dir, tmp_path / "run", adapter=None)
    whole = TrainerSnapshot(plan, tokenizer, {})
    whole.saved = tmp_path / "checkpoint-3"
    whole.saved.mkdir()
    save_file({"weight": torch.zeros(2)}, whole.saved / "model.safetensors")
    (whole.saved / "config.json").write_text('{"model_type": "llama", "use_cache": false}')
    found = contents(whole.model_files())
    assert json.loads(found["config.json"]) == {"model_type": "llama", "use_cache": True}
    assert "adapter_config.json" not in found and "model.safetensors" in found


def test_the_manifest_is_over_all_of_it(snapshot: TrainerSnapshot, tmp_path: Path) -> None:
    written = write_checkpoint(
        tmp_path / "checkpoints",
        3,
        snapshot.files(STATE),
        expected_bytes=snapshot.num_bytes(),
    )
    path = written.checkpoint.path
    assert verify_checkpoint(path) == ""
    weights = load_file(path / "adapter_model.safetensors")
    assert torch.equal(weights["lora_A.weight"], torch.arange(6.0).reshape(2, 3))
    (path / "llamafactory_optimizer.pt").write_bytes(b"content of optimizer.pX")
    assert "llamafactory_optimizer.pt" in verify_checkpoint(path)


def test_the_state_of_the_loop_comes_back(snapshot: TrainerSnapshot, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "c", 3, snapshot.files(STATE)).checkpoint.path
    assert repr(snapshot.restore(path)) == repr(STATE)  # a NaN is not equal to itself
    record = json.loads((path / STATE_FILE).read_text())
    assert (record["global_step"], record["best_global_step"]) == (3, 2)
    assert record["identity"] == {"seed": "42"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"loop": 3}', '{"loop": {"step": {}}}'])
def test_a_state_of_something_else_is_refused(
    snapshot: TrainerSnapshot, tmp_path: Path, text: str
) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(RunError, match="does not hold the state of this run") as caught:
        snapshot.restore(tmp_path)
    assert "--resume" in caught.value.hint


def test_the_names_of_the_trainer_lead_back(snapshot: TrainerSnapshot, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "c", 3, snapshot.files(STATE)).checkpoint.path
    assert own_names(path) == {
        "adapter_model.safetensors": "adapter_model.safetensors",
        "adapter_config.json": "adapter_config.json",
        **{f"llamafactory_{name}": name for name in OWN},
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named(
    snapshot: TrainerSnapshot, tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    bad = torch.ones(4, dtype=dtype)
    bad[2] = value
    whole = torch.full((2,), 2**31 - 1, dtype=torch.int32)
    snapshot.saved = trainer_directory(
        tmp_path / "bad", good=torch.ones(3, dtype=dtype), bad=bad, whole=whole
    )
    assert snapshot.non_finite() == ("bad",)


def test_finite_weights_are_no_fault(snapshot: TrainerSnapshot) -> None:
    assert snapshot.non_finite() == ()


def test_an_empty_file_is_kept_as_it_is(snapshot: TrainerSnapshot) -> None:
    assert snapshot.saved is not None
    (snapshot.saved / "scaler.pt").write_bytes(b"")
    assert contents(snapshot.files(STATE))["llamafactory_scaler.pt"] == b""


def test_its_size_is_that_of_weights_and_state(snapshot: TrainerSnapshot) -> None:
    assert snapshot.saved is not None
    names = ("adapter_model.safetensors", *OWN)
    assert snapshot.num_bytes() == sum((snapshot.saved / n).stat().st_size for n in names)


def test_nothing_saved_is_an_error_of_the_disk(tiny_model_dir: Path, tokenizer: Any) -> None:
    nothing = TrainerSnapshot(tiny_plan(tiny_model_dir, Path("run")), tokenizer, {})
    assert nothing.num_bytes() == 0
    for act in (
        lambda: list(nothing.files(STATE)),
        lambda: list(nothing.model_files()),
        nothing.non_finite,
    ):
        with pytest.raises(OSError, match="has not saved anything"):
            act()
