"""Starting a run again that was killed: by the kernel for its memory, by a driver, by a defect.

What ended by a decision is not started again: done, wrong input, a gate, a run that failed, a stop
that a person or a scheduler asked for.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence

from llamafarm.errors import EXIT_DEFECT
from llamafarm.training.run_directory import RunDirectory
from llamafarm.training.signals import stop_signals_to

_LONGEST_PAUSE_SECONDS = 60
_NAPS_PER_SECOND = 10


def supervise(
    command: Sequence[str],
    directory: RunDirectory,
    *,
    max_restarts: int,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Run a command to its end, again with --resume after every crash; its exit code.

    A run that crashed before it was in its directory, where another one may be, is started as the
    first time. A signal that asks to stop goes to the run, which saves; it is not started again
    then.
    """
    signals = _Signals()
    earlier = _run_id(directory)
    with stop_signals_to(signals.hand_on):
        restarts = 0
        while True:
            code = signals.wait(subprocess.Popen(command, process_group=0))
            crashed = code < 0 or code == EXIT_DEFECT
            if not crashed or signals.first() or restarts == max_restarts:
                return code if code >= 0 else 128 - code
            restarts += 1
            if _has_begun(directory, earlier, command):
                command, how = resuming(command), "going on from its last checkpoint"
            else:
                how = "starting it again"
            seconds = min(2**restarts, _LONGEST_PAUSE_SECONDS)
            say(
                f"the run {_cause(code)}; {how} in {seconds} s "
                f"(restart {restarts} of {max_restarts})"
            )
            # A sleep goes on after a signal, so there are many short ones.
            for _ in range(seconds * _NAPS_PER_SECOND):
                if not signals.first():
                    pause(1 / _NAPS_PER_SECOND)
            if signals.first():
                return 128 + signals.first()


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


def _run_id(directory: RunDirectory) -> object:
    """None where there is no run, or none that can be read."""
    try:
        return directory.read_run().get("id")
    except OSError:
        return None


def _has_begun(directory: RunDirectory, earlier: object, command: Sequence[str]) -> bool:
    """Whether --resume would go on with the run of this command, and not with one before it.

    earlier: the id of the run that was in the directory at first.
    """
    if "--resume" in command:
        return True
    if earlier is None and "--overwrite" not in command:
        return True
    return _run_id(directory) not in (None, earlier)


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended by a defect (exit code {code})"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class _Signals:
    """Hands stop signals on to the run and remembers the first.

    The run is a process group of its own, so a terminal sends Ctrl-C here only.
    """

    def __init__(self) -> None:
        self._first = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: deque[int] = deque()

    def first(self) -> int:
        """The number of the first signal that asked to stop; 0: none did."""
        return self._first

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code of the run; negative: the signal that killed it."""
        self._process = process
        self._send_pending()  # what came while it was started
        try:
            return process.wait()
        finally:
            self._process = None

    def hand_on(self, number: int, frame: object) -> None:
        """Handle a signal."""
        self._first = self._first or number
        self._pending.append(number)
        self._send_pending()

    def _send_pending(self) -> None:
        """Each one once, also where another signal interrupts this: a second one ends a run at
        once.
        """
        while self._process is not None:
            try:
                number = self._pending.popleft()
            except IndexError:
                return
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
