"""The seam between a run and the backend that trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from llamafarm.data.tokenized import PreparedData
from llamafarm.monitoring.comparison import Sample
from llamafarm.monitoring.events import Event
from llamafarm.planning.plan import TrainingPlan
from llamafarm.training.checkpoint import Checkpoint
from llamafarm.training.run_directory import RunDirectory
from llamafarm.training.signals import StopRequest
from llamafarm.training.state import LoopState


@dataclass(frozen=True)
class TrainingJob:
    """Everything a backend needs. resume: a verified checkpoint to go on from; emit: where events
    go; ends_for: the finding that the run is to end for now; empty: none.
    """

    plan: TrainingPlan
    data: PreparedData
    tokenizer: Any
    directory: RunDirectory
    emit: Callable[[Event], None]
    stop: StopRequest
    resume: Checkpoint | None = None
    ends_for: Callable[[], str] = lambda: ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a backend leaves: a `final_model/` on disk, the last state, the peak memory of the
    process, and a few evaluation rows as the base and the kept model answer them.
    """

    state: LoopState
    peak_memory_bytes: int
    samples: tuple[Sample, ...] = ()


class Backend(Protocol):
    """Trains a job to its end, or raises: Interrupted after saving, RunError when it failed."""

    def __call__(self, job: TrainingJob) -> Outcome:
        """Train."""
        ...
