"""Runs of the real command without the seconds that imports take: one process imports everything
once, and forks a child for every run.

A child is a process of its own, in a session of its own, with the signal handlers, the streams and
the random numbers that a new process has; it calls what the console script calls. What it does not
have of its own is the hash seed of Python. So that we know that it is the same, a few cases of the
campaign start the console command itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import logging
import os
import pickle
import pkgutil
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 120.0
WITHOUT_REPORTS = "CAMPAIGN_WITHOUT_REPORTS"
"""A variable: runs draw no report at their end, which takes longer than they do."""
# What llamafarm imports only when it needs it. Importing is all that is done before a fork.
_LIBRARIES = (
    "accelerate",
    "bokeh.plotting",
    "datasets",
    "gguf",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "numpy.ctypeslib",
    "peft.tuners.lora.bnb",
    "peft.utils.transformers_weight_conversion",
    "pyarrow",
    "safetensors.torch",
    "tokenizers",
    "torch._dynamo",
    "torch.profiler._cupti_monitor",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.optimization",
    "transformers.trainer_pt_utils",
)
# A thread does not survive a fork, and a library that has started one waits for it in the child.
_ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's jemalloc
}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1"}
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)


@dataclass(frozen=True)
class _Order:
    """What the server is asked to start. before: a pickled callable, or nothing."""

    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    before: bytes
    output: str
    cpu: int


class Child:
    """A run in progress, or done. pid is also the number of its process group."""

    def __init__(self, pid: int, output: Path, ended: Future[int]) -> None:
        self.pid = pid
        self._output = output
        self._ended = ended

    def poll(self) -> int | None:
        """Exit code, or minus the signal's number; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """As poll, at the end. Raises TimeoutError after `timeout` seconds, and ends the child."""
        try:
            return self._ended.result(timeout)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            self._ended.result(10)
            raise TimeoutError(f"still running after {timeout:.0f} s\n{self.stderr}") from None

    def signal(self, number: signal.Signals) -> bool:
        """Send a real signal; whether there was still a process to send it to."""
        if self._ended.done():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._read("stderr")

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._read("stdout")

    def _read(self, name: str) -> str:
        try:
            return self._output.with_suffix(f".{name}").read_text(errors="replace")
        except FileNotFoundError:  # killed before it had its streams
            return ""


class Zygote:
    """The client's side: starts the server, asks it for children. Threads may share it."""

    def __init__(self, *, source: Path | None = None) -> None:
        """source: a directory with a package `llamafarm` to be run instead of the installed one."""
        ours, theirs = socket.socketpair()
        self._logs = tempfile.TemporaryDirectory(prefix="campaign-")
        self._number = 0
        self._cpus = sorted(os.sched_getaffinity(0))
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._ends: dict[int, Future[int]] = {}
        path = [str(source)] if source else []
        env = {**os.environ, **_ONE_THREAD, **_OFFLINE}
        env["PYTHONPATH"] = os.pathsep.join([*path, str(ROOT), env.get("PYTHONPATH", "")])
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.campaign.zygote", str(theirs.fileno())],
                env=env,
                cwd=ROOT,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        self._connection: Connection = Connection(ours.detach())
        self.facts: dict[str, Any] = {}

    def start(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str] | None = None,
        before: Callable[[], object] | None = None,
    ) -> Child:
        """Fork a child that runs `llamafarm ARGV`. env: changes to the environment; before: called
        in the child first; it must be picklable.
        """
        with self._asking:
            if not self.facts:
                self._get_ready()
            self._number += 1
            output = Path(self._logs.name) / str(self._number)
            packed = b"" if before is None else pickle.dumps(before)
            cpu = self._cpus[self._number % len(self._cpus)]
            self._connection.send(
                _Order(tuple(argv), str(cwd), dict(env or {}), packed, str(output), cpu)
            )
            pid = self._answers.get()
            if pid is None:
                raise RuntimeError("the zygote has ended")
            return Child(pid, output, self._ends[pid])

    def run(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str] | None = None,
        before: Callable[[], object] | None = None,
    ) -> tuple[int, Child]:
        """Start and wait."""
        child = self.start(argv, cwd, env, before)
        return child.wait(), child

    def _get_ready(self) -> None:
        """The imports take seconds, which the caller may have used for something else."""
        if not self._connection.poll(PATIENCE_SECONDS):
            raise TimeoutError("the zygote did not become ready")
        self.facts = self._connection.recv()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, pid, status = self._connection.recv()
                if kind == "started":
                    self._ends[pid] = Future()
                    self._answers.put(pid)
                else:
                    self._ends[pid].set_result(status)
        self._answers.put(None)
        for end in self._ends.values():
            if not end.done():
                end.set_exception(RuntimeError("the zygote has ended"))

    def close(self) -> None:
        """End the server, and with it every child that still runs."""
        if self.facts:
            with contextlib.suppress(OSError):  # it may have died
                self._connection.send(None)
        else:
            self._server.terminate()  # it may be importing still
        self._server.wait(30)
        self._logs.cleanup()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@functools.cache
def shared_zygote() -> Zygote:
    """The one of this process; it ends with it."""
    zygote = Zygote()
    atexit.register(zygote.close)
    return zygote


def _serve(connection: Connection) -> None:
    """Import, then fork a child for every order until the client goes."""
    started = time.monotonic()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # as the command does
    for name in (*_LIBRARIES, *_own_modules(), "tests.faults.campaign.shim"):
        importlib.import_module(name)
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    if WITHOUT_REPORTS in os.environ:
        from llamafarm.training import run

        run._report = lambda *_: None
    get_checkpoint_conversion_mapping("")  # a table of a thousand patterns, made on first use
    gc.collect()
    gc.freeze()
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
    if threads != 1:
        raise RuntimeError(f"{threads} threads run before the first fork: children would hang")
    import llamafarm

    connection.send({"seconds": time.monotonic() - started, "source": llamafarm.__file__})
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's
    running: set[int] = set()
    try:
        while True:
            wait([connection, reader])
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 4096)
            _reap(connection, running)
            if connection.poll():
                order = connection.recv()
                if order is None:
                    break
                pid = os.fork()
                if pid == 0:
                    os.close(reader)
                    os.close(writer)
                    connection.close()
                    _be_the_child(order)
                running.add(pid)
                connection.send(("started", pid, 0))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the client is gone
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _own_modules() -> list[str]:
    """All of llamafarm."""
    import llamafarm

    found = pkgutil.walk_packages(llamafarm.__path__, "llamafarm.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def _reap(connection: Connection, running: set[int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        running.discard(pid)
        connection.send(("ended", pid, os.waitstatus_to_exitcode(status)))


def _be_the_child(order: _Order) -> None:
    """Never returns: as a new process would be, then the command, then out as the interpreter
    goes.
    """
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        _take_streams(order.output)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.sched_setaffinity(0, {order.cpu})  # the planner takes a thread for every core it may use
        os.chdir(order.cwd)
        os.environ.update(order.env)
        _forget_random_numbers()
        _call(order)
    except KeyboardInterrupt:
        code = 130
        traceback.print_exc()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    _leave(code)


def _call(order: _Order) -> NoReturn:
    if order.before:
        pickle.loads(order.before)()
    # As the interpreter makes them, now that it is settled what the descriptors are.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.argv = ["llamafarm", *order.argv]
    from llamafarm.cli.main import run

    run()


def _leave(code: int) -> None:
    """What the interpreter does at its end, as far as it can be seen from outside."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)


def _take_streams(output: str) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, number)
        os.close(file)


def _forget_random_numbers() -> None:
    """A new process draws others: a child that has its parent's would hide that they decide."""
    import random

    import numpy as np

    random.seed()
    np.random.seed(int.from_bytes(os.urandom(4), "little"))


if __name__ == "__main__":
    # Orders are pickled under the module's own name.
    from tests.faults.campaign import zygote

    zygote._serve(Connection(int(sys.argv[1])))
