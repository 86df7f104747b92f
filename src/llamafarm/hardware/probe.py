"""Looks at this machine. The only module that asks torch which devices there are."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from llamafarm.hardware.facts import Accelerator, Cpu, Hardware
from llamafarm.hardware.limits import physical_cores, usable_cores, usable_memory

# /proc/cpuinfo's names of bf16 arithmetic in hardware: AVX-512 and AMX on x86, the extension on
# Arm.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def probe(root: Path = Path("/")) -> Hardware:
    """Facts about this machine, as this process may use it. root: where /proc and /sys are read."""
    import torch

    cpu = probe_cpu(torch, root)
    return Hardware(
        cpu=cpu,
        accelerators=(*cuda_devices(torch), *mps_devices(torch, cpu)),
        system=platform.system(),
        python_version=platform.python_version(),
        torch_version=str(torch.__version__),
    )


def cpu_threads(root: Path = Path("/")) -> int:
    """Threads that this process can keep busy, found without torch."""
    return usable_cores(root, _affinity())[0]


def probe_cpu(torch: Any, root: Path = Path("/")) -> Cpu:
    """The processor, with affinity and control groups applied. torch: the module."""
    import psutil

    affinity = _affinity()
    cores, cores_reason = usable_cores(root, affinity)
    memory = psutil.virtual_memory()
    total, available, memory_reason = usable_memory(root, memory.total, memory.available)
    flags = _cpu_flags(root)
    return Cpu(
        name=_cpu_name(root),
        usable_cores=cores,
        cores_reason=cores_reason,
        capability=str(torch.backends.cpu.get_cpu_capability()),
        has_native_bf16=_onednn_has_bf16(torch) and not flags.isdisjoint(_BF16_FLAGS),
        has_amx="amx_tile" in flags,
        memory_total_bytes=total,
        memory_available_bytes=available,
        memory_reason=memory_reason,
        physical_cores=physical_cores(root, affinity),
    )


def cuda_devices(torch: Any) -> tuple[Accelerator, ...]:
    """Every CUDA (or ROCm) device that this process sees. torch: the module."""
    if not torch.cuda.is_available():
        return ()
    return tuple(_cuda_device(torch, index) for index in range(torch.cuda.device_count()))


def mps_devices(torch: Any, cpu: Cpu) -> tuple[Accelerator, ...]:
    """The Apple GPU, whose memory is the machine's: its share of it is what Metal recommends."""
    if not torch.backends.mps.is_available():
        return ()
    total = cpu.memory_total_bytes
    if hasattr(torch.mps, "recommended_max_memory"):
        total = min(total, int(torch.mps.recommended_max_memory()))
    return (
        Accelerator(
            kind="mps",
            name_in_torch="mps",
            name=cpu.name,
            memory_total_bytes=total,
            memory_free_bytes=min(total, cpu.memory_available_bytes),
            has_bf16=bool(torch.backends.mps.is_macos_or_newer(14, 0)),
            has_fp16=True,
            has_tf32=False,
        ),
    )


def free_disk_bytes(path: Path) -> int:
    """Free bytes where `path` is, or would be created."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def bitsandbytes_available() -> bool:
    """Whether the optional package of quantised weights and 8-bit optimizers is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def _cuda_device(torch: Any, index: int) -> Accelerator:
    properties = torch.cuda.get_device_properties(index)
    capability = (int(properties.major), int(properties.minor))
    is_rocm = torch.version.hip is not None
    return Accelerator(
        kind="cuda",
        name_in_torch=f"cuda:{index}",
        name=str(properties.name),
        memory_total_bytes=int(properties.total_memory),
        memory_free_bytes=_cuda_free_bytes(torch, index),
        has_bf16=is_rocm or capability >= (8, 0),
        # Before Volta fp16 arithmetic is slower than fp32.
        has_fp16=is_rocm or capability >= (7, 0),
        has_tf32=not is_rocm and capability >= (8, 0),
        compute_capability=capability,
    )


def _cuda_free_bytes(torch: Any, index: int) -> int:
    """0 where the driver does not give this process a context: the forecast then says that nothing
    fits.
    """
    try:
        free, _total = torch.cuda.mem_get_info(index)
    except RuntimeError:
        return 0
    return int(free)


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _onednn_has_bf16(torch: Any) -> bool:
    """Whether the library behind the matrix products would take bf16 at all (private, so it may be
    gone).
    """
    operators = torch.ops.mkldnn
    if not hasattr(operators, "_is_mkldnn_bf16_supported"):
        return False
    return bool(operators._is_mkldnn_bf16_supported())


def _cpu_flags(root: Path) -> frozenset[str]:
    line = _cpuinfo(root, "flags") or _cpuinfo(root, "Features")
    return frozenset(line.split())


def _cpu_name(root: Path) -> str:
    name = _cpuinfo(root, "model name")
    if not name and platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return name or platform.machine()


def _cpuinfo(root: Path, key: str) -> str:
    """First value of a key in /proc/cpuinfo; empty where there is none."""
    file = root / "proc/cpuinfo"
    lines = (
        file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    )
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), "")
