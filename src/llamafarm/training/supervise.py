"""Starting a run again that was killed: by the kernel for its memory, by a driver, by a defect.

What ended by a decision is not started again: done, wrong input, a gate, a run that failed, a stop
that a person or a scheduler asked for.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from llamafarm.errors import EXIT_DEFECT

_LONGEST_PAUSE_SECONDS = 60.0
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def supervise(
    command: Sequence[str],
    *,
    max_restarts: int,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Run a command to its end, again with --resume after every crash; its exit code.

    A signal that asks to stop goes to the run, which saves; it is not started again then.
    """
    with _Signals() as signals:
        restarts = 0
        while True:
            code = signals.wait(subprocess.Popen(command, process_group=0))
            crashed = code < 0 or code == EXIT_DEFECT
            if not crashed or signals.first() or restarts == max_restarts:
                return code if code >= 0 else 128 - code
            restarts += 1
            seconds = min(2.0**restarts, _LONGEST_PAUSE_SECONDS)
            say(
                f"the run {_cause(code)}; going on from its last checkpoint in {seconds:.0f} s "
                f"(restart {restarts} of {max_restarts})"
            )
            pause(seconds)
            if signals.first():
                return 128 + signals.first()
            command = resuming(command)


def resuming(command: Sequence[str]) -> list[str]:
    """The command that goes on with the same run."""
    kept = [part for part in command if part not in ("--overwrite", "--resume")]
    return [*kept, "--resume"]


def without_restarts(argv: Sequence[str]) -> list[str]:
    """The arguments without `--max-restarts N`: a run that is started does not start others."""
    kept: list[str] = []
    skip = False
    for part in argv:
        if not skip and not part.startswith("--max-restarts="):
            skip = part == "--max-restarts"
            kept += [] if skip else [part]
        else:
            skip = False
    return kept


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended by a defect (exit code {code})"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class _Signals:
    """Context manager that hands stop signals on to the run and remembers the first.

    The run is a process group of its own, so a terminal sends Ctrl-C here only.
    """

    def __init__(self) -> None:
        self._first = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        for number in _STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._hand_on)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us

    def first(self) -> int:
        """The number of the first signal that asked to stop; 0: none did."""
        return self._first

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code of the run; negative: the signal that killed it."""
        self._process = process
        try:
            return process.wait()
        finally:
            self._process = None

    def _hand_on(self, number: int, frame: object) -> None:
        self._first = self._first or number
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
