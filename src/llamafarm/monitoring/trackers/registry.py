"""Which trackers there are. Their clients are imported in the process that uses them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from llamafarm.monitoring.trackers.tracker import OpenTracker


@dataclass(frozen=True, slots=True)
class TrackerKind:
    """title: as its makers write it; package: what has to be importable; distributions: what brings
    it; adapter: module and class of ours; log_in: what to do where it refuses a run.
    """

    title: str
    package: str
    distributions: tuple[str, ...]
    adapter: tuple[str, str]
    log_in: str

    def load(self) -> OpenTracker:
        """What opens a run of it."""
        module, name = self.adapter
        found = importlib.import_module(f"llamafarm.monitoring.trackers.{module}")
        return cast("OpenTracker", getattr(found, name))


TRACKERS: Mapping[str, TrackerKind] = {
    "wandb": TrackerKind(
        "Weights & Biases",
        "wandb",
        ("wandb",),
        ("weights_and_biases", "WandbTracker"),
        "`wandb login`, or WANDB_MODE=offline to keep the run on this machine",
    ),
    "mlflow": TrackerKind(
        "MLflow",
        "mlflow",
        ("mlflow", "mlflow-skinny"),
        ("mlflow", "MlflowTracker"),
        "MLFLOW_TRACKING_URI says where it goes, such as sqlite:///mlflow.db or a server's address",
    ),
    "trackio": TrackerKind(
        "trackio",
        "trackio",
        ("trackio",),
        ("trackio", "TrackioTracker"),
        "without TRACKIO_SPACE_ID it stays on this machine",
    ),
}
