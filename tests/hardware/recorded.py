"""Machines as `probe` would describe them: planning is tested against these."""

from __future__ import annotations

from llamafarm.hardware.facts import GIB, Accelerator, Cpu, Hardware


def make_cpu(
    name: str,
    cores: int,
    memory_gib: float,
    *,
    capability: str = "AVX2",
    native_bf16: bool = False,
    amx: bool = False,
) -> Cpu:
    return Cpu(
        name=name,
        usable_cores=cores,
        cores_reason=f"{cores} in the affinity of this process",
        capability=capability,
        has_native_bf16=native_bf16,
        has_amx=amx,
        memory_total_bytes=int(memory_gib * GIB),
        memory_available_bytes=int(memory_gib * 0.9 * GIB),
        memory_reason="memory of the machine",
        physical_cores=cores,
    )


def make_cuda(
    name: str, total_gib: float, free_gib: float, capability: tuple[int, int], index: int = 0
) -> Accelerator:
    return Accelerator(
        kind="cuda",
        name_in_torch=f"cuda:{index}",
        name=name,
        memory_total_bytes=int(total_gib * GIB),
        memory_free_bytes=int(free_gib * GIB),
        has_bf16=capability >= (8, 0),
        has_fp16=capability >= (7, 0),
        has_tf32=capability >= (8, 0),
        compute_capability=capability,
    )


def make_mps(name: str, cpu: Cpu) -> Accelerator:
    total = int(cpu.memory_total_bytes * 0.7)
    return Accelerator(
        kind="mps",
        name_in_torch="mps",
        name=name,
        memory_total_bytes=total,
        memory_free_bytes=total,
        has_bf16=True,
        has_fp16=True,
        has_tf32=False,
    )


_WORKSTATION = make_cpu("AMD Ryzen 9 7950X", 16, 64)
_CLOUD_CPU = make_cpu("Intel(R) Xeon(R) Platinum 8259CL", 8, 32, capability="AVX512")
_M2_CPU = make_cpu("Apple M2", 8, 16, capability="NO AVX")

A10 = Hardware(_CLOUD_CPU, (make_cuda("NVIDIA A10", 23.7, 22.5, (8, 6)),))
T4 = Hardware(_CLOUD_CPU, (make_cuda("Tesla T4", 14.7, 14.5, (7, 5)),))
V100 = Hardware(_CLOUD_CPU, (make_cuda("Tesla V100-SXM2-16GB", 15.8, 15.5, (7, 0)),))
H200 = Hardware(
    make_cpu(
        "Intel(R) Xeon(R) Platinum 8558", 16, 128, capability="AVX512", native_bf16=True, amx=True
    ),
    (make_cuda("NVIDIA H200", 139.7, 139.1, (9, 0)),),
)
RTX_3060 = Hardware(_WORKSTATION, (make_cuda("NVIDIA GeForce RTX 3060", 11.8, 10.9, (8, 6)),))
RTX_4090 = Hardware(_WORKSTATION, (make_cuda("NVIDIA GeForce RTX 4090", 23.6, 23.0, (8, 9)),))
M2_16GB = Hardware(_M2_CPU, (make_mps("Apple M2", _M2_CPU),), system="Darwin")
LAPTOP = Hardware(make_cpu("Intel(R) Core(TM) i5-8250U", 2, 8))
SERVER_AMX = Hardware(
    make_cpu(
        "Intel(R) Xeon(R) Platinum 8480+", 32, 256, capability="AVX512", native_bf16=True, amx=True
    )
)

ALL = {
    "a10": A10,
    "t4": T4,
    "v100": V100,
    "h200": H200,
    "rtx_3060": RTX_3060,
    "rtx_4090": RTX_4090,
    "m2_16gb": M2_16GB,
    "laptop": LAPTOP,
    "server_amx": SERVER_AMX,
}
