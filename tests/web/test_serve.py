"""The command as a process of its own: what it prints, and how it ends."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.monitoring.run_directories import write_run


class Process:
    """`llamafarm dashboard`, started."""

    def __init__(self, directory: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "llamafarm", "dashboard", str(directory), "--no-browser"]
        self._process = subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def get(self, path: str = "") -> http.client.HTTPResponse:
        """The head of an answer; its body is not waited for."""
        where = urlsplit(self.address)
        assert where.hostname is not None
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        connection.request("GET", where.path + path)
        return connection.getresponse()

    def end(self, number: int) -> tuple[int, str]:
        """The exit code, and what was said."""
        self._process.send_signal(number)
        _, told = self._process.communicate(timeout=60)
        return self._process.returncode, told

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "first").parent


@pytest.fixture
def started(runs: Path) -> Iterator[Process]:
    process = Process(runs)
    yield process
    process.kill()


def test_it_listens_on_this_machine_only_and_has_a_new_token_every_time(
    started: Process, runs: Path
) -> None:
    where = urlsplit(started.address)
    assert (where.scheme, where.hostname) == ("http", "127.0.0.1")
    assert started.get().status == 200
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        # The whole of 127.0.0.0/8 is this machine, and another address of it.
        other.connect(("127.0.0.2", where.port or 0))
    second = Process(runs)
    try:
        tokens = [urlsplit(process.address).path for process in (started, second)]
    finally:
        second.kill()
    assert tokens[0] != tokens[1]
    assert all(len(token) >= 32 for token in tokens)


def test_ctrl_c_ends_it_with_streams_open(started: Process) -> None:
    streams = [started.get("events/?seen=nothing") for _ in range(2)]
    assert [stream.readline()[:4] for stream in streams] == [b"id: "] * 2
    assert started.end(signal.SIGINT) == (130, "Ctrl-C ends it\nstopped\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_too(started: Process, number: signal.Signals) -> None:
    code, _ = started.end(number)
    # What a shell shows as 143 and 129.
    assert code == -number


def test_a_port_that_is_in_use_is_an_error_of_the_user(started: Process, runs: Path) -> None:
    port = urlsplit(started.address).port
    command = [sys.executable, "-m", "llamafarm", "dashboard", str(runs), "--port", str(port)]
    done = subprocess.run([*command, "--no-browser"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: port {port} of 127.0.0.1 cannot be had: it is in use\n"
        "hint: choose another one with --port N, or leave --port out for any that is free\n"
    )
