"""What must be the same for a resumed run to be the run that was interrupted."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from llamafarm.planning.plan import TrainingPlan

# These change speed, talk or storage, not numbers.
_FREE = {
    "evaluation.answer_metrics",
    "batch.num_workers",
    "device.name",
    "saving",
    "logging",
    "model.source.directory",
    "model.source.notice",
}
_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


def run_identity(plan: TrainingPlan) -> dict[str, str]:
    """Dotted name → value, as text, of everything that decides the trained weights."""
    parts: dict[str, Any] = {
        "model.source.fingerprint": plan.model.source.fingerprint,
        "model.dtype": plan.model.dtype,
        "data": plan.data_fingerprint,
        "max_length": plan.max_length,
        "seed": plan.seed,
        "on_nonfinite": plan.on_nonfinite,
        "torch_compile": plan.torch_compile,
        "gradient_checkpointing": plan.gradient_checkpointing,
    }
    parts_of = ("adapter", "quantization", "device", "optimizer", "batch", "evaluation")
    for name in (*parts_of, *(["llamafactory"] if plan.llamafactory else [])):
        value = getattr(plan, name)
        parts |= {name: None} if value is None else _flatten(name, asdict(value))
    # Those of the other engine's environment are in its part of the plan.
    own = () if plan.llamafactory else _LIBRARIES
    versions = {f"version of {name}": _version(name) for name in own}
    return {key: str(value) for key, value in (parts | versions).items() if key not in _FREE}


def identity_differences(saved: Mapping[str, str], current: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each value that is not what it was, in words."""
    names = sorted(saved.keys() | current.keys())
    return tuple(
        f"{name}: was {saved.get(name, 'absent')}, is {current.get(name, 'absent')}"
        for name in names
        if saved.get(name) != current.get(name)
    )


def _flatten(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        flat |= _flatten(name, value) if isinstance(value, Mapping) and value else {name: value}
    return flat


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
