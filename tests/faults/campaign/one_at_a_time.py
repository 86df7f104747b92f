"""Cases that patch this process, or are sent its signals: one after the other, in this thread."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator

from tests.faults.campaign.row import Case


def one_at_a_time(jobs: Iterable[Callable[[], Case]]) -> Iterator[Case]:
    """The cases as they are done. What could not be driven is a case that failed."""
    for number, job in enumerate(jobs):
        try:
            yield job()
        except Exception:
            text = traceback.format_exc()
            yield Case(str(number), passed=False, detail=f"could not be driven: {text}")
