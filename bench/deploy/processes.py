"""Starts the processes that are measured, each with cold input files where the system allows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.environment import ROOT

_QUIET_FOR_SECONDS = 10.0


def ask_child(directory: Path, **job: Any) -> dict[str, Any]:
    """The answer of bench.deploy.child. Raises CalledProcessError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.deploy.child"],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(directory),
        cwd=ROOT,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def command_seconds(directory: Path, arguments: Sequence[str]) -> float:
    """`llamafarm` with these arguments, from its start to its end."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "llamafarm", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(directory),
        cwd=ROOT,
        check=True,
    )
    return time.perf_counter() - begin


def environment(directory: Path) -> dict[str, str]:
    """As a user has it: compiled modules are kept, here beside what else is measured."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {
        "PYTHONPYCACHEPREFIX": str(directory / "pycache"),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))),
        "HF_HUB_OFFLINE": "1",
    }


def convert_arguments(source: Path, target: Path, kind: str) -> list[str]:
    """What is typed behind `llamafarm`."""
    asked = ["--format", "safetensors"]
    if kind != "safetensors":
        asked = ["--format", "gguf", "--quantization", kind.lower()]
    return ["convert", str(source), str(target), *asked, "--no-verify"]


def make_cold(files: Iterable[Path]) -> None:
    """Nothing left to write from before, and the files out of this system's page cache; a virtual
    machine's host may still have them.
    """
    os.sync()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def remove(path: Path) -> None:
    """A file or a directory, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def wait_for_quiet(load: float, seconds: float) -> None:
    """Until the machine's load average is this low, or the time is over."""
    end = time.monotonic() + seconds
    while os.getloadavg()[0] > load and time.monotonic() < end:
        time.sleep(_QUIET_FOR_SECONDS)
