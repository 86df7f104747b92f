"""One measurement in a fresh process: `python -m bench.deploy.child`, a job as JSON on its standard
input, an answer as JSON on its last line.

It imports nothing before the clock runs, or before the memory is read, that the job does not need.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PIECE = 4 << 20
_HEAVY = ("torch", "transformers", "peft", "safetensors", "accelerate")


def main() -> None:
    """A job: `what`, and the arguments of the function that does it."""
    job = json.loads(sys.stdin.read())
    what = job.pop("what")
    jobs: dict[str, Callable[..., dict[str, Any]]] = {
        "floor": floor,
        "conversion": conversion,
        "memory": memory,
    }
    print(json.dumps(jobs[what](**job)))


def floor(inputs: list[str], target: str, nbytes: int) -> dict[str, Any]:
    """Read the files, and write as many bytes as the output has, with fsync."""
    piece = bytes(PIECE)
    begin = time.perf_counter()
    for file in inputs:
        descriptor = os.open(file, os.O_RDONLY)
        while os.read(descriptor, PIECE):
            pass
        os.close(descriptor)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    left = nbytes
    while left:
        left -= os.write(descriptor, piece[:left])
    os.fsync(descriptor)
    os.close(descriptor)
    return {"seconds": time.perf_counter() - begin}


def conversion(source: str, target: str, kind: str) -> dict[str, Any]:
    """Find the model, plan, write, fsync: all that the command does but parse and report."""
    from llamafarm.export.convert import write_safetensors
    from llamafarm.export.file_types import FILE_TYPES
    from llamafarm.export.source import find_source, open_model
    from llamafarm.hardware.probe import cpu_threads
    from llamafarm.recipes import Tools, recipe_of_model

    def quiet(*_: object) -> None:
        pass

    begin = time.perf_counter()
    found = find_source(source, working_directory=Path.cwd())
    if kind == "safetensors":
        Path(target).mkdir()
        model = open_model(found)
        planned = time.perf_counter()
        write_safetensors(found, model, Path(target), on_work=quiet)
    else:
        tools = Tools(cpu_threads(), quiet, quiet)
        recipe = recipe_of_model(found, "measured", FILE_TYPES[kind], tools)
        planned = time.perf_counter()
        recipe.write(Path(target))
    return {"seconds": time.perf_counter() - begin, "planning": planned - begin}


def memory(arguments: list[str]) -> dict[str, Any]:
    """The command line in this process; then its peak."""
    from llamafarm.cli.main import main as llamafarm

    code = llamafarm(arguments)
    if code:
        raise SystemExit(code)
    heavy = sorted(set(_HEAVY) & set(sys.modules))
    return {"peak_bytes": peak_bytes(), "heavy_modules": heavy}


def peak_bytes() -> int:
    """The largest resident memory of this process so far. getrusage would give that of the process
    it was forked from, where it was larger.
    """
    return peak_of(Path("/proc/self/status").read_text(encoding="ascii"))


def peak_of(status: str) -> int:
    """Bytes, from what the system says of a process."""
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
