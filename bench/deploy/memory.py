"""The largest memory that a conversion needs, for models of several sizes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path

from bench.deploy.child import peak_of
from bench.deploy.models import LARGE, MIDDLE, random_adapter, trained_adapter
from bench.deploy.processes import ask_child, convert_arguments, remove
from bench.deploy.results import MemoryRow
from bench.environment import ROOT
from llamafarm.export.source import find_source
from llamafarm.export.weights import StoredWeights

KINDS = ("safetensors", "F16", "Q8_0")
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def measure_memory(directory: Path, on_row: Callable[[MemoryRow], None]) -> list[MemoryRow]:
    """Every kind of output for every model, each in a fresh process."""
    interpreter = interpreter_peak_bytes()
    models = {"SmolLM2-135M": trained_adapter(directory)}
    models |= {size.name: random_adapter(directory, size) for size in (MIDDLE, LARGE)}
    rows = []
    for name, source in models.items():
        whole, largest = stored_bytes(find_source(str(source), working_directory=ROOT).base)
        for kind in KINDS:
            target = directory / "made-for-memory"
            arguments = convert_arguments(source, target, kind)
            done = ask_child(directory, what="memory", arguments=arguments)
            remove(target)
            peak, heavy = done["peak_bytes"], tuple(done["heavy_modules"])
            rows.append(MemoryRow(name, kind, whole, largest, interpreter, peak, heavy))
            on_row(rows[-1])
    return rows


def interpreter_peak_bytes() -> int:
    """Of a Python process that imports nothing of its own."""
    program = "print(open('/proc/self/status').read())"
    command = [sys.executable, "-c", program]
    return peak_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def stored_bytes(directory: Path) -> tuple[int, int]:
    """Of all weights of a model, and of its largest tensor."""
    weights = StoredWeights.of_model(directory)
    sizes = [prod(s) * _ITEM_BYTES[weights.dtypes[name]] for name, s in weights.shapes.items()]
    return sum(sizes), max(sizes)
