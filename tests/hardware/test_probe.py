"""The real machine, and stand-ins for torch where this machine has no such device."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamafarm.hardware.facts import GIB
from llamafarm.hardware.probe import (
    cuda_devices,
    free_disk_bytes,
    mps_devices,
    probe,
    probe_cpu,
)
from tests.hardware.recorded import LAPTOP, M2_16GB


def fake_cuda(capability: tuple[int, int], *, hip: str | None = None, fails: bool = False) -> Any:
    def mem_get_info(index: int) -> tuple[int, int]:
        if fails:
            raise RuntimeError("CUDA error: exclusive process")
        return (20 + index) * GIB, 24 * GIB

    properties = SimpleNamespace(
        name="NVIDIA A10", major=capability[0], minor=capability[1], total_memory=24 * GIB
    )
    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 2,
            get_device_properties=lambda index: properties,
            mem_get_info=mem_get_info,
        ),
        version=SimpleNamespace(hip=hip),
    )


def test_probe_describes_this_machine() -> None:
    import torch

    hardware = probe()
    assert 1 <= hardware.cpu.usable_cores <= (os.cpu_count() or 1)
    assert 0 < hardware.cpu.memory_available_bytes <= hardware.cpu.memory_total_bytes
    assert hardware.cpu.capability == torch.backends.cpu.get_cpu_capability()
    assert hardware.torch_version == torch.__version__
    assert hardware.devices()[-1] == "cpu"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_an_affinity_of_one_leaves_one_usable_core() -> None:
    import torch

    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        cpu = probe_cpu(torch)
    finally:
        os.sched_setaffinity(0, before)
    assert cpu.usable_cores == 1
    assert cpu.cores_reason == "1 in the affinity of this process"


def fake_cpu_torch(onednn_has_bf16: bool | None) -> Any:
    operators = SimpleNamespace()
    if onednn_has_bf16 is not None:
        operators._is_mkldnn_bf16_supported = lambda: onednn_has_bf16
    return SimpleNamespace(
        ops=SimpleNamespace(mkldnn=operators),
        backends=SimpleNamespace(cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX512")),
    )


@pytest.mark.parametrize(
    ("flags", "onednn", "native", "amx"),
    [
        ("fma avx512f avx512_bf16 amx_tile amx_bf16", True, True, True),
        ("fma avx512f avx512_bf16", True, True, False),
        ("fma avx512f", True, False, False),
        ("fma avx512f avx512_bf16", False, False, False),
        ("fma avx512f avx512_bf16", None, False, False),
    ],
)
def test_bf16_is_native_only_where_processor_and_library_both_have_it(
    tmp_path: Path, flags: str, onednn: bool | None, native: bool, amx: bool
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"model name\t: Some CPU @ 2GHz\nflags\t\t: {flags}\n")
    cpu = probe_cpu(fake_cpu_torch(onednn), tmp_path)
    assert (cpu.has_native_bf16, cpu.has_amx) == (native, amx)
    assert cpu.name == "Some CPU @ 2GHz"


@pytest.mark.parametrize(
    ("capability", "bf16", "fp16", "tf32"),
    [
        ((9, 0), True, True, True),
        ((8, 6), True, True, True),
        ((7, 5), False, True, False),
        ((7, 0), False, True, False),
        ((6, 1), False, False, False),
    ],
)
def test_number_formats_of_a_cuda_device_follow_its_capability(
    capability: tuple[int, int], bf16: bool, fp16: bool, tf32: bool
) -> None:
    first, second = cuda_devices(fake_cuda(capability))
    assert (first.has_bf16, first.has_fp16, first.has_tf32) == (bf16, fp16, tf32)
    assert (first.name_in_torch, second.name_in_torch) == ("cuda:0", "cuda:1")
    assert second.memory_free_bytes == 21 * GIB


def test_rocm_has_bf16_and_no_tf32_whatever_its_capability_numbers_say() -> None:
    device = cuda_devices(fake_cuda((6, 0), hip="6.4"))[0]
    assert (device.has_bf16, device.has_tf32) == (True, False)


def test_a_device_that_gives_no_context_has_no_free_memory() -> None:
    assert cuda_devices(fake_cuda((8, 0), fails=True))[0].memory_free_bytes == 0


def test_the_apple_gpu_shares_the_memory_of_the_machine() -> None:
    torch = SimpleNamespace(
        backends=SimpleNamespace(
            mps=SimpleNamespace(is_available=lambda: True, is_macos_or_newer=lambda *_: True)
        ),
        mps=SimpleNamespace(recommended_max_memory=lambda: 11 * GIB),
    )
    (device,) = mps_devices(torch, replace(M2_16GB.cpu, memory_available_bytes=5 * GIB))
    assert device.memory_total_bytes == 11 * GIB
    assert device.memory_free_bytes == 5 * GIB


def test_no_apple_gpu_no_device() -> None:
    torch = SimpleNamespace(
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    )
    assert mps_devices(torch, LAPTOP.cpu) == ()


def test_free_disk_is_that_of_the_nearest_directory_that_exists(tmp_path: Path) -> None:
    assert free_disk_bytes(tmp_path / "not" / "yet" / "there") > 0
