"""How long a conversion takes, against only reading its input and writing as many bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.deploy.models import trained_adapter
from bench.deploy.processes import (
    ask_child,
    command_seconds,
    convert_arguments,
    make_cold,
    remove,
)
from bench.deploy.results import SpeedRow, SpeedRun
from bench.environment import ROOT
from llamafarm.export.source import find_source
from llamafarm.models.fingerprint import weight_files

KINDS = ("F16", "Q8_0", "safetensors")
WHAT = ("floor", "conversion", "command")


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of output. inputs: the files that are read; output_bytes: of all that is written."""

    kind: str
    source: Path
    inputs: tuple[Path, ...]
    output_bytes: int
    directory: Path


def measure_speed(
    directory: Path, rounds: int, on_run: Callable[[str, SpeedRun], None]
) -> list[SpeedRow]:
    """Every kind, `rounds` times each of floor, conversion and command, in turn."""
    source = trained_adapter(directory)
    rows = []
    for kind in KINDS:
        job = _job(kind, source, directory)
        runs = []
        for number in range(rounds):
            for what in turned(WHAT, number):
                runs.append(_run(job, what))
                on_run(kind, runs[-1])
        input_bytes = sum(file.stat().st_size for file in job.inputs)
        rows.append(SpeedRow(kind, input_bytes, job.output_bytes, tuple(runs)))
    return rows


def turned(what: Sequence[str], number: int) -> list[str]:
    """Another one is first in every round."""
    first = number % len(what)
    return [*what[first:], *what[:first]]


def _job(kind: str, source: Path, directory: Path) -> Job:
    """The first conversion and the first command are not counted: Python compiles its modules."""
    found = find_source(str(source), working_directory=ROOT)
    inputs = (
        *weight_files(found.base),
        found.directory / "adapter_model.safetensors",
        found.tokenizer / "tokenizer.json",
    )
    first = Job(kind, source, inputs, 0, directory)
    _run(first, "command")
    target = _target(first)
    ask_child(directory, what="conversion", **_arguments(first, "conversion"))
    written = [path for path in target.rglob("*") if path.is_file()] or [target]
    nbytes = sum(path.stat().st_size for path in written)
    remove(target)
    return Job(kind, source, inputs, nbytes, directory)


def _run(job: Job, what: str) -> SpeedRun:
    target = _target(job)
    make_cold(job.inputs)
    load = os.getloadavg()[0]
    if what == "command":
        arguments = convert_arguments(job.source, target, job.kind)
        seconds = command_seconds(job.directory, arguments)
    else:
        seconds = ask_child(job.directory, what=what, **_arguments(job, what))["seconds"]
    remove(target)
    return SpeedRun(what, seconds, load)


def _arguments(job: Job, what: str) -> dict[str, Any]:
    target = str(_target(job))
    if what == "conversion":
        return {"source": str(job.source), "target": target, "kind": job.kind}
    inputs = [str(file) for file in job.inputs]
    return {"inputs": inputs, "target": target, "nbytes": job.output_bytes}


def _target(job: Job) -> Path:
    return job.directory / f"made-{job.kind}"
