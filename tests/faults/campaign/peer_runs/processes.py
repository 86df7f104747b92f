"""Runs of the scripts without the seconds that imports take: a server of multiprocessing imports
everything once, and forks a child for every run. A child is a real process, in a session of its
own, that real signals are sent to; it ends as the interpreter ends.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

_MODULES = (
    "trl",
    "trl.trainer.sft_trainer",
    "peft",
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer_jit_checkpoint",
    "torch._dynamo",
    "tests.faults.campaign.peer_runs.scripts",
)
# A thread does not survive a fork; one thread adds up in one order.
_ENV = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Child:
    """A run in progress, or done."""

    process: Any
    output: Path

    @property
    def pid(self) -> int:
        """Also the number of its process group."""
        return int(self.process.pid)

    def poll(self) -> int | None:
        """Exit code, or minus the signal's number; None while it runs."""
        code: int | None = self.process.exitcode
        return code

    def wait(self, timeout: float) -> int:
        """As poll, at the end. Raises TimeoutError after `timeout` seconds, and ends the child."""
        self.process.join(timeout)
        code = self.poll()
        if code is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"still running after {timeout:.0f} s\n{self.stderr[-2000:]}")
        return code

    def signal(self, number: signal.Signals) -> bool:
        """Send a real signal; whether there was still a process to send it to."""
        if self.poll() is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._read("stdout")

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._read("stderr")

    def _read(self, name: str) -> str:
        file = self.output.with_suffix(f".{name}")
        return file.read_text(errors="replace") if file.exists() else ""


def start_script(
    argv: Sequence[str], output: Path, before: Callable[[], object] | None = None
) -> Child:
    """Fork a child that runs the script. output: its streams go to this name, with .stdout and
    .stderr; before: called in the child first; it must be picklable.
    """
    process = _context().Process(target=_be_a_script, args=(tuple(argv), output, before))
    with patch.dict(os.environ, _ENV):  # the first child starts the server, which imports
        process.start()
    return Child(process, output)


@functools.cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_MODULES))
    return context


def _be_a_script(argv: Sequence[str], output: Path, before: Callable[[], object] | None) -> None:
    """In the child, as a console would have it: uncaught errors end it with 1, Ctrl-C with the
    signal.
    """
    from tests.faults.campaign.peer_runs.scripts import main

    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = os.open(output.with_suffix(f".{name}"), flags, 0o666)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        if before is not None:
            before()
        main(argv)
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
