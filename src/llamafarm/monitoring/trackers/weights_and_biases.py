"""Weights & Biases."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from llamafarm.monitoring.trackers.tracker import PROJECT, RunFacts

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]")
_STEP = "global_step"


class WandbTracker:
    """A run of `wandb`; its own variables (WANDB_PROJECT, WANDB_MODE, …) are obeyed."""

    def __init__(self, facts: RunFacts) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=_NOT_IN_AN_ID.sub("-", facts.id)[-128:],
            name=facts.name,
            config=dict(facts.config),
            dir=str(Path(facts.directory) / "logs"),
            resume="allow",
            # Output and load of the machine would be those of this process.
            settings=wandb.Settings(console="off", x_disable_stats=True, save_code=False),
        )
        # A resumed run takes steps again; wandb's own step cannot go back.
        self._run.define_metric("*", step_metric=_STEP)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """As Tracker."""
        self._run.log({**values, _STEP: step})

    def tell(self, name: str, text: str) -> None:
        """As Tracker: in the run's summary."""
        self._run.summary[name] = text

    def finish(self, status: str, results: Mapping[str, float]) -> None:
        """As Tracker."""
        self._run.summary.update({**results, "status": status})
        self._run.finish(exit_code=0 if status == "completed" else 1)
