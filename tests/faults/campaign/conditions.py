"""What a child finds around it: a hangup that is ignored, a clock that jumps, a terminal that is
gone, a disk with little room. Each is called in the child before the command.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class IgnoreHangup:
    """As `nohup` starts a command."""

    def __call__(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


@dataclass(frozen=True)
class WaitFor:
    """Begin when a file is there: several begin together."""

    file: Path

    def __call__(self) -> None:
        while not self.file.exists():
            time.sleep(0.001)


@dataclass(frozen=True)
class ClockJumps:
    """The time of day jumps by up to a day, forwards and backwards, whenever it is asked for."""

    seed: int

    def __call__(self) -> None:
        chance = random.Random(self.seed)
        now, now_ns = time.time, time.time_ns

        def jump() -> float:
            return chance.uniform(-_DAY_SECONDS, _DAY_SECONDS)

        time.time = lambda: now() + jump()
        time.time_ns = lambda: now_ns() + int(jump() * 1e9)
        jumping = _jumping(datetime, jump)
        for name, module in list(sys.modules.items()):
            if name.startswith("llamafarm.") and getattr(module, "datetime", None) is datetime:
                module.datetime = jumping


def _jumping(kind: Any, jump: Callable[[], float]) -> Any:
    class Jumping(kind):  # type: ignore[misc]
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return kind.now(zone) + timedelta(seconds=jump())

    return Jumping


@dataclass(frozen=True)
class LostTerminal:
    """stdout and stderr are a terminal that is closed after some seconds."""

    after_seconds: float

    def __call__(self) -> None:
        ours, theirs = os.openpty()
        for number in (1, 2):
            os.dup2(theirs, number)
        os.close(theirs)
        threading.Thread(target=_read_and_close, args=(ours, self.after_seconds)).start()


def _read_and_close(reader: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    os.set_blocking(reader, False)
    while time.monotonic() < deadline:
        try:
            os.read(reader, 4096)
        except BlockingIOError:
            time.sleep(0.01)
    os.close(reader)


@dataclass(frozen=True)
class ClosedPipe:
    """stderr is a pipe that nobody reads any more after some seconds."""

    after_seconds: float

    def __call__(self) -> None:
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(writer)
        threading.Thread(target=_read_and_close, args=(reader, self.after_seconds)).start()


@dataclass(frozen=True)
class LittleRoom:
    """The file system says that it has so many bytes left, whatever is written."""

    free_bytes: int

    def __call__(self) -> None:
        usage = shutil.disk_usage

        def little(path: Any) -> Any:
            return usage(path)._replace(free=self.free_bytes)

        shutil.disk_usage = little
