"""accelerate and torch, as far as they differ by device."""

from __future__ import annotations

import resource
import sys
from typing import Any

import psutil
import torch

from llamafarm.planning.plan import DevicePlan


def new_accelerator(plan: DevicePlan) -> Any:
    """An Accelerator for this plan. accelerate keeps process-wide state, which an earlier run must
    not decide.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=plan.device == "cpu", mixed_precision=plan.mixed_precision)
    if plan.device.startswith("cuda:"):
        torch.cuda.set_device(plan.device)
        PartialState().device = torch.device(plan.device)
    return accelerator


def peak_memory_bytes(device: torch.device) -> int:
    """Peak of what the run held: device memory on CUDA, resident memory of the process
    elsewhere.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_memory_bytes(device: torch.device) -> int:
    """What is held now: device memory on CUDA and MPS, resident memory of the process elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return int(psutil.Process().memory_info().rss)


def device_utilisation(device: torch.device) -> float | None:
    """Percent of the last moments in which a kernel ran, as NVML tells it; None where there is no
    NVML, or it does not answer (a slice of a device has no such number).
    """
    if device.type != "cuda":
        return None
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # NVML's own errors have no other parent; none of them is worth a run
        return None
