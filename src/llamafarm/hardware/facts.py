"""Facts about a machine: plain values, so that a recorded machine is as good as this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DeviceKind = Literal["cuda", "mps", "cpu"]
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A CUDA or MPS device. name_in_torch: `cuda:0`, `mps`. MPS shares the machine's memory
    (unified).
    """

    kind: DeviceKind
    name_in_torch: str
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    has_bf16: bool
    has_fp16: bool
    has_tf32: bool
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor as this process may use it: affinity, cgroup quota and cgroup memory limit
    applied.

    capability: torch's name of the vector level (`AVX2`, `AVX512`, …); has_native_bf16: False where
    bf16 matrix products are emulated (60 to 100 times slower than fp32). physical_cores: the usable
    cores without their hardware twins (SMT); None where the machine does not say.
    """

    name: str
    usable_cores: int
    cores_reason: str
    capability: str
    has_native_bf16: bool
    has_amx: bool
    memory_total_bytes: int
    memory_available_bytes: int
    memory_reason: str
    physical_cores: int | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """Everything planning knows about a machine."""

    cpu: Cpu
    accelerators: tuple[Accelerator, ...] = field(default=())
    system: str = "Linux"
    python_version: str = ""
    torch_version: str = ""

    def devices(self) -> tuple[str, ...]:
        """What can be asked for by `hardware.device`, best first."""
        return (*(a.name_in_torch for a in self.accelerators), "cpu")
