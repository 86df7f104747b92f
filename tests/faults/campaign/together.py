"""Cases that do not disturb each other, a few at a time."""

from __future__ import annotations

import os
import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from tests.faults.campaign.row import Case

Job = tuple[str, Callable[[], list[Case]]]
"""The name of a case, and what does it; some turn out to be several."""


def at_once() -> int:
    """How many children train at the same time; each has a core of its own."""
    return int(os.environ.get("CAMPAIGN_AT_ONCE", 0)) or min(2, len(os.sched_getaffinity(0)))


def chance_of(*what: object) -> random.Random:
    """Random numbers of a case: the same ones whenever it is done, with one seed."""
    seed = os.environ.get("CAMPAIGN_SEED", "0")
    return random.Random(" ".join(map(str, (seed, *what))))


def each(jobs: Iterable[Job]) -> Iterator[Case]:
    """The cases as they are done. What could not be driven is a case that failed."""
    waiting: dict[Future[list[Case]], str] = {}
    with ThreadPoolExecutor(at_once()) as pool:
        for name, job in jobs:
            waiting[pool.submit(job)] = name
            if len(waiting) > at_once():
                yield from _done(waiting)
        while waiting:
            yield from _done(waiting)


def _done(waiting: dict[Future[list[Case]], str]) -> Iterator[Case]:
    finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in finished:
        name = waiting.pop(future)
        error = future.exception()
        if error is None:
            yield from future.result()
        else:
            text = "".join(traceback.format_exception(error))
            yield Case(name, passed=False, detail=f"could not be driven: {text}")
