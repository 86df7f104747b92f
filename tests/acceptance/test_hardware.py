"""Which device, which number format, how many threads: chosen for the machine, with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from llamafarm.hardware.facts import Hardware
from llamafarm.hardware.probe import probe
from tests.hardware.recorded import (
    A10,
    H200,
    LAPTOP,
    M2_16GB,
    RTX_3060,
    RTX_4090,
    SERVER_AMX,
    T4,
    V100,
)

from . import seed
from .typed import plan_of, type_in, write_rows

TRAIN = "train --strategy-file pasted.yaml --dataset data.jsonl"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl")
    (tmp_path / "pasted.yaml").write_text(seed.pasted("config: {}\n"), "utf-8")


@pytest.mark.seed(46, 47, 48, 49)
@pytest.mark.parametrize(
    ("machine", "device", "precision", "weights", "tf32", "evidence"),
    [
        (H200, "cuda:0", "bf16", "bfloat16", True, "compute capability 9.0 has bf16"),
        (RTX_4090, "cuda:0", "bf16", "bfloat16", True, "compute capability 8.9 has bf16"),
        (A10, "cuda:0", "bf16", "bfloat16", True, "compute capability 8.6 has bf16"),
        (RTX_3060, "cuda:0", "bf16", "bfloat16", True, "compute capability 8.6 has bf16"),
        (T4, "cuda:0", "fp16", "float16", False, "compute capability 7.5 has no bf16"),
        (V100, "cuda:0", "fp16", "float16", False, "compute capability 7.0 has no bf16"),
        (M2_16GB, "mps", "no", "float32", False, "fp32 is the stable format on Apple GPUs"),
        (SERVER_AMX, "cpu", "bf16", "bfloat16", False, "this CPU has native bf16 (AMX)"),
        (LAPTOP, "cpu", "no", "float32", False, "bf16 is emulated on this CPU (AVX2)"),
    ],
    ids=["h200", "rtx_4090", "a10", "rtx_3060", "t4", "v100", "m2", "amx", "laptop"],
)
def test_device_and_precision_follow_the_machine(
    machine: Hardware,
    device: str,
    precision: str,
    weights: str,
    tf32: bool,
    evidence: str,
    model_dir: Path,
) -> None:
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=machine)
    chosen = plan.device
    assert (chosen.device, chosen.mixed_precision, chosen.tf32) == (device, precision, tf32)
    assert plan.model.dtype == weights
    (decision,) = [d for d in plan.decisions if d.field == "precision"]
    assert decision.source == "detected" and decision.reason.startswith(evidence)


@pytest.mark.seed(48)
def test_apple_memory_is_shared_and_the_forecast_knows_its_limit(model_dir: Path) -> None:
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=M2_16GB)
    unified = M2_16GB.accelerators[0].memory_free_bytes
    assert plan.forecast.memory_limit_bytes == unified < M2_16GB.cpu.memory_total_bytes


@pytest.mark.seed(49)
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_one_usable_core_is_one_thread(model_dir: Path) -> None:
    """In the real command, from the kernel's limit to torch."""
    allowed = os.sched_getaffinity(0)
    more = ("--base-model", str(model_dir), "--set", "max_steps=1", "--set", "hardware.device=cpu")
    torch.set_num_threads(3)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert probe().cpu.usable_cores == 1
        done = type_in(TRAIN, *more)
    finally:
        os.sched_setaffinity(0, allowed)
    assert done.code == 0, done.err
    assert torch.get_num_threads() == 1
    assert "usable cores: 1 in the affinity of this process" in done.err


@pytest.mark.seed(49)
def test_one_thread_for_each_physical_core(model_dir: Path) -> None:
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=LAPTOP)
    assert plan.device.threads == 2


@pytest.mark.seed(50)
@pytest.mark.parametrize(
    "place", ["hardware:\n    optimization:\n      ", "training_args:\n    "], ids=str.split
)
@pytest.mark.parametrize("value", [True, False])
def test_checkpointing_is_switched_from_either_place(
    value: bool, place: str, model_dir: Path, tmp_path: Path
) -> None:
    line = f"config:\n  {place}gradient_checkpointing: {str(value).lower()}\n"
    (tmp_path / "pasted.yaml").write_text(seed.pasted(line), "utf-8")
    plan = plan_of(TRAIN, "--base-model", str(model_dir))
    assert plan.gradient_checkpointing is value


@pytest.mark.seed(50)
def test_checkpointing_is_switched_on_where_the_memory_would_not_do(
    model_dir: Path, tmp_path: Path
) -> None:
    """The planner's answer to a card with too little memory comes before anything is trained."""
    from tests.planning.building import LLAMA_7B, plan_for, with_args

    roomy = plan_for(with_args(), H200, LLAMA_7B, rows=500)
    tight = plan_for(with_args(), RTX_4090, LLAMA_7B, rows=500)
    assert not roomy.gradient_checkpointing
    assert tight.gradient_checkpointing or tight.batch.micro_batch_size < 8
    assert tight.forecast.fits
