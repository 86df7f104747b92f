from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from llamafarm.monitoring.report.charts import MOST_POINTS, charts_of
from llamafarm.web import stream
from llamafarm.web.library import RunLibrary
from llamafarm.web.stream import MOST_STREAMS, Streams
from llamafarm.web.views import UnknownRun, View, Views, make_view, message
from tests.monitoring.events_of_a_run import eval_event, overfitting_event, step_event
from tests.monitoring.run_directories import EVENTS, add_events, is_going_on, write_run

from .conftest import TOKEN, Serve

T = TypeVar("T")


def told(text: str) -> Any:
    """The data of one message."""
    _, data, *_ = text.split("\n")
    return json.loads(data.removeprefix("data: "))


async def first(messages: AsyncIterator[str]) -> str:
    async with asyncio.timeout(60):
        return await anext(messages)


@pytest.fixture
def going_on(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "now", EVENTS[:7], status="running", actual=None)


def view_of(root: Path) -> View:
    library = RunLibrary(root.parent)
    return Views(library, "/x/").run(library.id_of(root))


def test_new_points_are_sent_without_the_rest(going_on: Path) -> None:
    with is_going_on(going_on):
        before = view_of(going_on)
        add_events(going_on, step_event(5, 1.5))
        now = view_of(going_on)
        sent = json.loads(message(now, before))
    assert set(sent) == {"title", "parts", "columns", "steps"}
    assert set(sent["parts"]) == {"head"}
    assert sent["columns"]["loss/training loss"]["step"] == [1, 2, 3, 4, 5]
    assert "loss/eval loss" not in sent["columns"]


def test_what_was_not_drawn_before_is_drawn_anew(going_on: Path) -> None:
    with is_going_on(going_on):
        before = view_of(going_on)
        add_events(going_on, overfitting_event())
        sent = json.loads(message(view_of(going_on), before))
    assert "columns" not in sent
    assert len(sent["plots"]["items"]) == 1
    assert "overfitting" in sent["parts"]["findings"]


def test_a_page_of_an_unknown_state_gets_everything_and_an_equal_one_nothing(
    going_on: Path,
) -> None:
    view = view_of(going_on)
    sent = json.loads(message(view, None))
    assert set(sent["parts"]) == set(view.parts)
    assert "plots" in sent
    assert message(view, view_of(going_on)) == ""


def test_a_message_is_bounded_however_long_the_run_is() -> None:
    def view(steps: int) -> View:
        events = [step_event(step, 2.0 + step % 7) for step in range(1, steps)]
        return make_view("", {}, charts_of([*events, eval_event(steps, 1.0)]))

    short, long = view(2 * MOST_POINTS), view(30 * MOST_POINTS)
    assert len(message(long, None)) < 1.5 * len(message(short, None))


def run(listening: Coroutine[Any, Any, T]) -> T:
    """In a thread: a browser that another test has opened has a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, listening).result()


def test_the_page_and_its_stream_agree_on_the_version(serve: Serve, going_on: Path) -> None:
    async def listen() -> str:
        views = Views(RunLibrary(going_on.parent), f"/{TOKEN}/")
        messages = Streams().events(views.runs, views.runs().version)
        waiting = asyncio.ensure_future(first(messages))
        # It has nothing to say until something happens.
        await asyncio.wait({waiting}, timeout=0.3)
        assert not waiting.done()
        write_run(going_on.parent / "other")
        return await waiting

    sent = told(run(listen()))
    assert "other" in sent["parts"]["runs"]
    # There is nothing drawn in a list.
    assert set(sent) == {"title", "parts"}
    assert f'data-version="{Views(RunLibrary(going_on.parent), f"/{TOKEN}/").runs().version}"' in (
        serve(going_on.parent).page()
    )


def test_a_page_that_was_away_gets_what_it_missed(going_on: Path) -> None:
    views = Views(RunLibrary(going_on.parent), "/x/")
    sent = run(first(Streams().events(views.runs, "another version")))
    assert sent.startswith(f"id: {views.runs().version}\n")
    assert set(told(sent)["parts"]) == {"title", "runs"}


def test_all_streams_end_at_once(going_on: Path) -> None:
    async def listen() -> list[str]:
        views, streams = Views(RunLibrary(going_on.parent), "/x/"), Streams()
        asyncio.get_running_loop().call_later(0.2, streams.end)
        async with asyncio.timeout(60):
            return [text async for text in streams.events(views.runs, views.runs().version)]

    assert run(listen()) == []


def test_a_run_that_is_gone_ends_its_stream() -> None:
    def gone() -> View:
        raise UnknownRun("gone")

    async def listen() -> list[str]:
        return [text async for text in Streams().events(gone, "")]

    assert run(listen()) == []


def test_streams_are_counted_and_one_too_many_is_refused(
    serve: Serve, going_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def open_and_close() -> list[bool]:
        views, streams = Views(RunLibrary(going_on.parent), "/x/"), Streams()
        opened = [streams.events(views.runs, "") for _ in range(MOST_STREAMS)]
        for messages in opened:
            await first(messages)
        full = [streams.is_full]
        await opened[0].aclose()  # type: ignore[attr-defined]  # a generator
        return [*full, streams.is_full]

    assert run(open_and_close()) == [True, False]
    served = serve(going_on.parent)
    monkeypatch.setattr(stream, "MOST_STREAMS", 0)
    assert served.client.get(f"/{TOKEN}/events/").status_code == 503


def test_a_view_that_takes_long_is_made_less_often(
    going_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pauses that it asks for, without waiting for them."""
    pauses: list[float] = []
    clock = iter(range(0, 1000, 3))

    async def listen() -> None:
        streams = Streams()

        async def wait(seconds: float) -> None:
            pauses.append(seconds)
            streams.end()

        monkeypatch.setattr(streams, "_wait", wait)
        monkeypatch.setattr(stream, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        views = Views(RunLibrary(going_on.parent), "/x/")
        async for _ in streams.events(views.runs, views.runs().version):
            pass

    run(listen())
    assert pauses == [60.0]
