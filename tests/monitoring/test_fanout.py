from __future__ import annotations

import pytest

from llamafarm.monitoring.events import Event
from llamafarm.monitoring.fanout import Fanout

from .events_of_a_run import start_event, step_event


class Recorder:
    def __init__(self, log: list[str], name: str, fails: bool = False) -> None:
        self.log, self.name, self.fails = log, name, fails

    def handle(self, event: Event) -> None:
        self.log.append(f"{self.name} {event.kind}")

    def close(self) -> None:
        self.log.append(f"{self.name} closed")
        if self.fails:
            raise OSError("no")


def test_every_sink_gets_every_event_in_order() -> None:
    log: list[str] = []
    fanout = Fanout([Recorder(log, "a"), Recorder(log, "b")])
    fanout.handle(start_event())
    fanout.handle(step_event(1))
    fanout.close()
    assert log == ["a start", "b start", "a step", "b step", "a closed", "b closed"]


def test_a_sink_that_fails_to_close_leaves_no_other_open() -> None:
    log: list[str] = []
    with pytest.raises(OSError):
        Fanout([Recorder(log, "a", fails=True), Recorder(log, "b")]).close()
    assert log == ["a closed", "b closed"]
