"""What is done inside a run. Every fault is put where all tools pass: the optimizer of torch, the
modules of torch, the functions that write files; so the same code does it to each of them.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_ROOT = Path(__file__).parents[4]
What = Literal["nothing", "kill", "NaN loss", "NaN gradient", "out of memory"]
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free."


@dataclass(frozen=True, slots=True)
class InTraining:
    """Called in the process. log: a line for every optimizer step that is really done.

    what happens once, at the `at`-th (from 1) forward pass of a training micro-batch; pause:
    seconds slept after each optimizer step.
    """

    log: Path
    what: What = "nothing"
    at: int = 0
    pause: float = 0.0

    def __call__(self) -> None:
        """Install it, for good."""
        import torch
        from torch.nn.modules.module import register_module_forward_hook
        from torch.optim.optimizer import register_optimizer_step_post_hook

        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

        def stepped(*_: Any) -> None:
            os.write(log, b"step\n")
            time.sleep(self.pause)

        register_optimizer_step_post_hook(stepped)
        if self.what == "nothing":
            return
        from transformers.models.llama.modeling_llama import LlamaModel

        seen = 0

        def passed(module: Any, _: Any, output: Any) -> Any:
            nonlocal seen
            if not (isinstance(module, LlamaModel) and module.training):
                return None
            seen += 1
            if seen != self.at:
                return None
            os.write(log, b"fault\n")
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            hidden = output.last_hidden_state
            if self.what == "out of memory":
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            if self.what == "NaN gradient":
                hidden.register_hook(lambda gradient: gradient * float("nan"))
                return None
            output.last_hidden_state = hidden * float("nan")
            return output

        register_module_forward_hook(passed)


@dataclass(frozen=True, slots=True)
class InItsProcess:
    """Called in our process: the fault is done in the one that LLaMA-Factory trains in. script:
    where what starts there can be written.
    """

    fault: InTraining
    script: Path

    def __call__(self) -> None:
        """Install it, for good."""
        from llamafarm.training.backends.llamafactory import process

        fault = self.fault
        lines = [
            "import runpy, sys",
            "from pathlib import Path",
            f"sys.path.insert(0, {str(_ROOT)!r})",
            "from tests.faults.campaign.peer_runs.faults import InTraining",
            f"InTraining(Path({str(fault.log)!r}), {fault.what!r}, {fault.at}, {fault.pause})()",
            f"runpy.run_path({str(process.INSIDE)!r}, run_name='__main__')",
        ]
        self.script.write_text("\n".join(lines) + "\n")
        process.INSIDE = self.script


def steps_in(log: Path) -> int:
    """Optimizer steps done by all processes that had this log."""
    return log.read_text().count("step\n") if log.exists() else 0


def struck(log: Path) -> bool:
    """Whether the fault was done."""
    return log.exists() and "fault\n" in log.read_text()


@dataclass(frozen=True, slots=True)
class InSave:
    """Called in a process that saves with torch, safetensors and Python's files: kills it at a
    point of the save of checkpoint-<step>, or of the rotation after it.

    A point is the moment before a directory is made, a file is written or a directory is removed
    (`half` false), or one in the middle of that: a file opened by Python and still empty, half of
    a file of torch.save, half of the file beside that safetensors will rename, a directory with
    half of its files. at: which point, from 1; 0 for none. log: one line a point.
    """

    root: Path
    step: int
    log: Path
    at: int = 0

    def __call__(self) -> None:
        """Install it, for good."""
        import safetensors.torch
        import torch

        watch = _Watch(self)
        builtins.open = io.open = watch.opening(io.open)  # type: ignore[assignment]
        os.mkdir = watch.around(os.mkdir, None)
        shutil.rmtree = watch.around(shutil.rmtree, _remove_half)  # type: ignore[assignment]
        torch.save = watch.around(torch.save, _write_half, place=1)
        safetensors.torch.serialize_file = watch.around(
            safetensors.torch.serialize_file, _write_half_beside, place=1
        )


def points_of(log: Path) -> Sequence[str]:
    """In order, each with what it was before or in the middle of."""
    return log.read_text().splitlines()


class _Watch:
    def __init__(self, kill: InSave) -> None:
        self._kill = kill
        self._name = f"checkpoint-{kill.step}"
        self._root = os.path.realpath(kill.root) + os.sep
        self._active = False
        self._count = 0
        self._log = os.open(kill.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def around(
        self, real: Callable[..., Any], half: Callable[..., None] | None, place: int = 0
    ) -> Callable[..., Any]:
        """The function, with a point before it and one in its middle. place: of the path among its
        arguments; half: does half of it, given the function and its arguments.
        """

        def call(*given: Any, **named: Any) -> Any:
            path = self._watched(given[place]) if len(given) > place else None
            if path is None:
                return real(*given, **named)
            self._point(f"before {real.__name__} {path}")
            if half is not None and self._is_next():
                half(real, *given, **named)
            if half is not None:
                self._point(f"in the middle of {real.__name__} {path}")
            return real(*given, **named)

        return call

    def opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """open, with a point before it and one after it, when nothing is written yet."""

        def call(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
            writes = any(letter in mode for letter in "wax+")
            path = self._watched(file) if writes else None
            if path is None:
                return real(file, mode, *given, **named)
            self._point(f"before open {path}")
            stream = real(file, mode, *given, **named)
            self._point(f"in the middle of open {path}")
            return stream

        return call

    def _watched(self, path: Any) -> str | None:
        if not isinstance(path, str | os.PathLike):
            return None
        full = os.path.realpath(path)
        if not full.startswith(self._root):
            return None
        relative = full.removeprefix(self._root)
        first = relative.partition(os.sep)[0]
        self._active = first == self._name or (self._active and Path(full).is_dir())
        return relative if self._active else None

    def _is_next(self) -> bool:
        return self._count + 1 == self._kill.at

    def _point(self, what: str) -> None:
        self._count += 1
        os.write(self._log, f"{what}\n".encode())
        if self._count == self._kill.at:
            os.kill(os.getpid(), signal.SIGKILL)


def _write_half(real: Callable[..., Any], value: Any, path: Any, **named: Any) -> None:
    real(value, path, **named)
    os.truncate(path, Path(path).stat().st_size // 2)


def _write_half_beside(real: Callable[..., Any], value: Any, path: Any, **named: Any) -> None:
    """safetensors writes `.tmpXXXXXX` at its full length, and renames it."""
    beside = Path(path).with_name(".tmpAbCdEf")
    real(value, str(beside), **named)
    content = beside.read_bytes()
    beside.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def _remove_half(real: Callable[..., Any], path: Any, **_: Any) -> None:
    files = sorted(Path(path).iterdir())
    for file in files[: len(files) // 2]:
        file.unlink()
