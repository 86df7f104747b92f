"""Trackio."""

from __future__ import annotations

import os
from collections.abc import Mapping

from llamafarm.monitoring.trackers.tracker import PROJECT, RunFacts


class TrackioTracker:
    """A run of trackio; its own variables (TRACKIO_PROJECT, TRACKIO_SPACE_ID, …) are obeyed. It
    knows runs by their name alone, so that a run has its id there.
    """

    def __init__(self, facts: RunFacts) -> None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=facts.id,
            config={**facts.config, "run_name": facts.name},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """As Tracker."""
        self._run.log(dict(values), step=step)

    def tell(self, name: str, text: str) -> None:
        """As Tracker: an alert."""
        self._run.alert(title=name, text=text)

    def finish(self, status: str, results: Mapping[str, float]) -> None:
        """As Tracker."""
        self._run.log({f"end/{name}": value for name, value in results.items()})
        if status != "completed":
            self._run.alert(title="status", text=status)
        self._run.finish()  # type: ignore[no-untyped-call]  # trackio leaves it untyped
