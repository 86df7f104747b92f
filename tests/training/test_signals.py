"""The first signal asks, the second one ends; what was ignored stays ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llamafarm.training import signals
from llamafarm.training.signals import GRACE_SECONDS, StopRequest

SOURCE = Path(signals.__file__).parents[2]
PROGRAM = """
import os, signal, sys
from llamafarm.training.signals import StopRequest
with StopRequest() as stop:
    for number in sys.argv[1:]:
        os.kill(os.getpid(), int(number))
    print(stop.received)
"""


def child(*numbers: int, ignored: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A process that sends itself these signals, started with some of them ignored."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *(str(int(n)) for n in numbers)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        preexec_fn=ignoring(ignored),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ignoring(numbers: tuple[int, ...]) -> Callable[[], None]:
    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return ignore


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(number: signal.Signals) -> None:
    done = child(number, ignored=(number,))
    assert (done.returncode, done.stdout) == (0, "None\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_only_asks(number: signal.Signals) -> None:
    done = child(number)
    assert (done.returncode, done.stdout) == (0, f"{int(number)}\n")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGHUP),
    ],
)
def test_the_second_signal_ends_the_process_at_once(
    first: signal.Signals, second: signal.Signals
) -> None:
    done = child(first, second)
    assert (done.returncode, done.stdout) == (128 + second, "")


def test_without_a_signal_nothing_takes_too_long() -> None:
    assert not StopRequest().too_long(1e9)


def test_work_is_too_long_when_it_leaves_no_time_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        stop.save_seconds = 3.0
        assert not stop.too_long(GRACE_SECONDS - 3.0)
        assert stop.too_long(GRACE_SECONDS - 3.0 + 0.01)
        now += 5.0
        assert not stop.too_long(GRACE_SECONDS - 8.0)
        assert stop.too_long(GRACE_SECONDS - 8.0 + 0.01)
        now += GRACE_SECONDS
        assert stop.too_long(0.0)


def test_the_handlers_that_were_there_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(ValueError, match="whatever happens"), StopRequest():
        assert all(signal.getsignal(n) not in before for n in numbers)
        raise ValueError("whatever happens")
    assert [signal.getsignal(number) for number in numbers] == before


def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with StopRequest() as stop:
            seen.extend((signal.getsignal(signal.SIGTERM), stop.received))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, None]
