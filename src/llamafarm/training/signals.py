"""A first signal asks the loop to stop at the next safe point; a second one ends the process at
once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stop_signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call the handler where a signal asks to stop. Only a main thread can; elsewhere nothing
    changes.

    A signal that was ignored when the process began (`nohup`, a job in the background) stays so.
    """
    previous: dict[signal.Signals, object] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)  # type: ignore[arg-type]  # what signal.signal gave us


GRACE_SECONDS = 10.0
"""What `docker stop` waits before it kills; Kubernetes and Slurm give 30."""


class StopRequest:
    """Context manager. `received` is the number of the signal that asked to stop, or None;
    save_seconds: what a save took, to be kept free of the grace period.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.save_seconds = 1.0
        self._deadline = 0.0
        self._signals = stop_signals_to(self._on_signal)

    def __enter__(self) -> StopRequest:
        self._signals.__enter__()
        return self

    def too_long(self, seconds: float) -> bool:
        """Whether a signal came, and `seconds` more of work would not leave the time to save."""
        if self.received is None:
            return False
        return time.monotonic() + seconds + self.save_seconds > self._deadline

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._signals.__exit__(kind, error, traceback)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        self._deadline = time.monotonic() + GRACE_SECONDS
