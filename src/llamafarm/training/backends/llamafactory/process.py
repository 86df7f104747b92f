"""The process that LLaMA-Factory trains in: how it is started, spoken to, and ended with all of its
children. `inside.py` is what runs there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from llamafarm.errors import RunError
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.redact import redact
from llamafarm.training.backends.llamafactory.environment import VERSION, Environment
from llamafarm.training.checkpoint import free_bytes

INSIDE = Path(__file__).with_name("inside.py")
_TAIL_BYTES = 64 * 1024
_LITTLE_DISK = 1 << 20
_LINES_TOLD = 4
# What it may know of the caller's environment: nothing that names code, and no secret.
_KEPT = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|DYLD_\w+|CUDA_\w+|NVIDIA_\w+|NCCL_\w+|"
    r"HIP_\w+|ROCR_\w+|HSA_\w+|"
    r"OMP_\w+|MKL_\w+|GOMP_\w+|KMP_\w+|PYTORCH_\w+|TORCHINDUCTOR_\w+|TRITON_\w+|XDG_\w+|"
    r"MALLOC_\w+|SSL_CERT_\w+"
)
_SET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
}
_INSTALL = re.compile(r"pip install (?:-\S+ +)*['\"]?([A-Za-z0-9][A-Za-z0-9_.\-\[\]<>=!,]*)")


@dataclass(frozen=True, slots=True)
class Said:
    """One sentence of `inside.py`, whose words are asked for by name; one that is not there, or is
    something else, raises RunError. log: the file that has all of it.
    """

    sentence: str
    values: Mapping[str, Any]
    log: Path

    def whole(self, name: str) -> int:
        """A whole number."""
        if type(value := self.values.get(name)) is int:
            return value
        raise self.unknown(name)

    def number(self, name: str) -> float:
        """Any number; NaN where the trainer had none that is finite."""
        value = self.values.get(name, "")
        if value is None:
            return math.nan
        if type(value) in (int, float):
            return float(value)
        raise self.unknown(name)

    def text(self, name: str) -> str:
        """A text."""
        if isinstance(value := self.values.get(name), str):
            return value
        raise self.unknown(name)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of numbers; NaN where there was none that is finite."""
        found = [math.nan if value is None else value for value in self._list(name)]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in found):
            return tuple(map(float, found))
        raise self.unknown(name)

    def wholes(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        found = self._list(name)
        if all(type(value) is int for value in found):
            return tuple(found)
        raise self.unknown(name)

    def row_losses(self) -> RowLosses:
        """Of an evaluation."""
        return RowLosses(self.numbers("losses"), self.wholes("tokens"), self.wholes("correct"))

    def _list(self, name: str) -> Sequence[Any]:
        if isinstance(value := self.values.get(name), list):
            return value
        raise self.unknown(name)

    def part(self, name: str) -> Said:
        """What the trainer itself logged."""
        if isinstance(value := self.values.get(name), dict):
            return Said(f"{self.sentence}.{name}", value, self.log)
        raise self.unknown(name)

    def unknown(self, name: str = "") -> RunError:
        """It says something that this version cannot read."""
        what = f"{name} in {dict(self.values)}" if name else f"{dict(self.values)}"
        return _unknown(f"{self.sentence}: {what}", self.log)


class TrainerProcess:
    """Context manager; whatever happens in the block, nothing is left running after it."""

    def __init__(
        self, environment: Environment, directory: Path, job: Path, log: Path, *, device: str
    ) -> None:
        self._environment, self._directory = environment, directory
        self._job, self._log, self._device = job, log, device

    def __enter__(self) -> TrainerProcess:
        from_it, out = os.pipe()
        into, to_it = os.pipe()
        self._from_it, self._to_it = from_it, to_it
        self._text = b""
        command = [str(self._environment.python), "-I", str(INSIDE), str(self._job)]
        try:
            with self._log.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    [*command, str(out), str(into)],
                    cwd=self._directory,
                    env=environment_of(os.environ, self._device),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(out, into),
                    start_new_session=True,
                )
        except OSError as error:
            os.close(from_it)
            os.close(to_it)
            raise RunError(
                f"LLaMA-Factory cannot be started: {error.strerror}: {self._environment.python}",
                hint="llamafarm doctor shows which environment is used",
            ) from error
        finally:
            os.close(out)
            os.close(into)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._to_it)  # it ends by itself where that closes
        os.close(self._from_it)
        self._kill()

    def listen(self, seconds: float) -> Said | None:
        """The next sentence; None where there is none within that time. Raises RunError when the
        process has ended, or says what this version does not know.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._text:
            left = max(0.0, deadline - time.monotonic())
            # A child that outlives it may hold the pipe open.
            ended = self._process.poll() is not None
            if not select.select([self._from_it], [], [], left)[0]:
                if ended:
                    raise self._failure()
                return None
            read = os.read(self._from_it, 1 << 16)
            if not read:
                raise self._failure()
            self._text += read
        line, _, self._text = self._text.partition(b"\n")
        try:
            values = json.loads(line)
            return Said(str(values.pop("say")), values, self._log)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise _unknown(line.decode(errors="replace"), self._log) from error

    def answer(self, **values: Any) -> None:
        """What `inside.py` waits for."""
        data = (json.dumps(values) + "\n").encode()
        try:
            os.write(self._to_it, data)
        except BrokenPipeError as error:
            raise self._failure() from error

    def stop_soon(self) -> None:
        """Ask it to end at the next chance."""
        self.answer(stop_soon=True)

    def wait(self, seconds: float) -> None:
        """Until it has ended by itself, or the time is up."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def _failure(self) -> RunError:
        self.wait(10.0)
        code = self._process.poll()
        how = f"ended with exit code {code}"
        if code is None:
            how = "closed its pipe"
        elif code < 0:
            with contextlib.suppress(ValueError):
                how = f"was ended by {signal.Signals(-code).name}"
        # A process that was ended from outside had no time to say why.
        told = meaningful_lines(self._tail(), raised=code is None or code > 0)
        advice = ""
        if any("out of memory" in line.lower() for line in told):
            advice = (
                "set a smaller per_device_train_batch_size, gradient_checkpointing: true or "
                "method.type: qlora; "
            )
        free = free_bytes(self._directory)
        if free is not None and free < _LITTLE_DISK:
            advice = f"{free:,} bytes are free at {self._directory}: make room, then --resume; "
        if missing := next(filter(None, map(_INSTALL.search, reversed(told))), None):
            words = ("--python", str(self._environment.python), missing[1].rstrip(".,"))
            advice = f"uv pip install {shlex.join(words)}; "
        return RunError(
            "\n  ".join([f"LLaMA-Factory {how}:", *told]) if told else f"LLaMA-Factory {how}",
            hint=f"{advice}the full log is {self._log}",
        )

    def _tail(self) -> str:
        """The end of what this start has printed."""
        try:
            with self._log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - _TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _kill(self) -> None:
        """The process and its children: they are a session of their own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10.0)


def _unknown(text: str, log: Path) -> RunError:
    return RunError(
        f"LLaMA-Factory said what this version does not know: {redact(text)[:200]}",
        hint=f"this version is made for LLaMA-Factory {VERSION}; the full log is {log}",
    )


def environment_of(environ: Mapping[str, str], device: str) -> dict[str, str]:
    """The variables that the process gets. device: as torch names it; the process sees that one
    only.
    """
    found = {name: value for name, value in environ.items() if _KEPT.fullmatch(name)}
    kind, _, index = device.partition(":")
    if kind == "cuda":
        visible = found.get("CUDA_VISIBLE_DEVICES", "").split(",")
        number = int(index or 0)
        names = [name for name in visible if name]
        found["CUDA_VISIBLE_DEVICES"] = names[number] if number < len(names) else str(number)
    elif kind == "cpu":
        found |= {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    return found | _SET


def meaningful_lines(text: str, *, raised: bool = True) -> list[str]:
    """What a person needs of the end of a log: the last exception where one ended the process, else
    the last lines.
    """
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("[INFO|")]
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent")]
    if starts and raised:
        after = lines[starts[-1] + 1 :]
        said = [i for i, line in enumerate(after) if not line.startswith(" ")]
        after = after[said[0] :] if said else after[-1:]
        told: Sequence[str] = after[:_LINES_TOLD]
    else:
        told = lines[-_LINES_TOLD:]
    return [redact(line.strip())[:300] for line in told]
