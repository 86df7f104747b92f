"""Server-sent events: what changed in a view, as long as somebody listens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from llamafarm.web.views import UnknownRun, View, message

# A browser has six connections to a server, and closes those of pages that nobody sees.
MOST_STREAMS = 24
_PAUSE_SECONDS = 1.0
# A training run has the machine: looking at it takes at most so much of one core.
_LARGEST_SHARE = 0.05
_SIGN_OF_LIFE_SECONDS = 15.0


class Streams:
    """All that are open. Each sends at most one message a second: what is new of a page whose size
    is bounded, whatever the run wrote in between.
    """

    def __init__(self) -> None:
        self._open = 0
        self._ending = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many."""
        return self._open >= MOST_STREAMS

    def end(self) -> None:
        """End all of them."""
        self._ending.set()

    async def events(self, make_view: Callable[[], View], seen: str) -> AsyncIterator[str]:
        """The messages of one stream. seen: the version of the view that the page shows."""
        self._open += 1
        try:
            before: View | None = None
            spoke = time.monotonic()
            while not self._ending.is_set():
                began = time.monotonic()
                try:
                    view = await run_in_threadpool(make_view)
                except UnknownRun:
                    return
                if view.version != (before.version if before else seen):
                    data = await run_in_threadpool(message, view, before)
                    yield f"id: {view.version}\ndata: {data}\n\n"
                    spoke = time.monotonic()
                elif began - spoke > _SIGN_OF_LIFE_SECONDS:
                    yield ":\n\n"
                    spoke = began
                before = view
                took = time.monotonic() - began
                await self._wait(max(_PAUSE_SECONDS, took / _LARGEST_SHARE))
        finally:
            self._open -= 1

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)
