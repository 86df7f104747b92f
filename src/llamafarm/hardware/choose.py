"""Which device and how many threads, from what was asked for and what there is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llamafarm.decision import Decision, place, written
from llamafarm.errors import HardwareError, Problem
from llamafarm.hardware.facts import GIB, Accelerator, Cpu, Hardware
from llamafarm.strategy.model import Origin

DEVICE = "hardware.device"


def choose_device(
    request: str, hardware: Hardware, origin: Origin | None = None
) -> tuple[str, Decision]:
    """The device to train on, under torch's name, and why.

    request: `auto`, `cuda`, `cuda:N`, `mps` or `cpu`. origin: who wrote it. Among several CUDA
    devices the one with the most free memory is taken. Raises HardwareError when the machine does
    not have what was asked for.
    """
    matching = [a for a in hardware.accelerators if request in ("auto", a.kind, a.name_in_torch)]
    if matching:
        best = max(matching, key=lambda a: a.memory_free_bytes)
        name, evidence = best.name_in_torch, describe_accelerator(best, of=len(matching))
    elif request in ("auto", "cpu"):
        name, evidence = "cpu", describe_cpu(hardware.cpu)
    else:
        raise _absent(request, hardware, origin)
    if request == "auto":
        return name, Decision(DEVICE, name, "detected", evidence)
    return name, written(DEVICE, name, origin, evidence)


def choose_threads(hardware: Hardware) -> tuple[int, Decision]:
    """Threads for torch on the CPU: one for each physical core that this process may use."""
    cpu = hardware.cpu
    threads = min(cpu.usable_cores, cpu.physical_cores or cpu.usable_cores)
    reason = f"usable cores: {cpu.cores_reason}"
    if threads < cpu.usable_cores:
        reason += f"; {threads} physical cores"
    return threads, Decision("hardware.threads", str(threads), "detected", reason)


def device_name(device: str, hardware: Hardware) -> str:
    """The name of the product behind torch's name."""
    accelerator = find_accelerator(device, hardware.accelerators)
    return hardware.cpu.name if accelerator is None else accelerator.name


def find_accelerator(device: str, accelerators: Sequence[Accelerator]) -> Accelerator | None:
    """The accelerator of that name; None for the CPU."""
    return next((a for a in accelerators if a.name_in_torch == device), None)


def describe_accelerator(accelerator: Accelerator, of: int = 1) -> str:
    """E.g. `NVIDIA A10, 22.5 GiB free of 23.7 GiB`. of: how many there were to choose from."""
    free, total = accelerator.memory_free_bytes / GIB, accelerator.memory_total_bytes / GIB
    text = f"{accelerator.name}, {free:.1f} GiB free of {total:.1f} GiB"
    return f"{text}, the most of {of}" if of > 1 else text


def describe_cpu(cpu: Cpu) -> str:
    """E.g. `AMD EPYC, 2 cores, AVX2, 20.1 GiB free of 23.4 GiB`."""
    free, total = cpu.memory_available_bytes / GIB, cpu.memory_total_bytes / GIB
    cores = "1 core" if cpu.usable_cores == 1 else f"{cpu.usable_cores} cores"
    return f"{cpu.name}, {cores}, {cpu.capability}, {free:.1f} GiB free of {total:.1f} GiB"


def _absent(request: str, hardware: Hardware, origin: Origin | None) -> HardwareError:
    present = [f"{a.name_in_torch} ({a.name})" for a in hardware.accelerators]
    present.append(f"cpu ({hardware.cpu.name})")
    best = hardware.devices()[0]
    return HardwareError(
        f"the device {request} was asked for, and this machine does not have it",
        [
            Problem(
                f"expected one of {', '.join(present)} (got {request})",
                where=place(origin),
                path=DEVICE,
                hint=f"write `device: auto`, or add `--set {DEVICE}={best}` for this time",
            )
        ],
    )
