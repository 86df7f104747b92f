"""Run directories as runs leave them, written by hand."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from llamafarm.monitoring.events import Event
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.metrics_file import event_line
from llamafarm.monitoring.run_record import RunRecord

from .events_of_a_run import events_of_a_run
from .report.records import full_record

EVENTS = events_of_a_run()
STRATEGY = """version: "2.0"
tiny:
  name: Tiny assistant
  components:
    fine_tuner:
      type: pytorch
      config:
        method: {type: lora, r: 8, target_modules: [q_proj, v_proj]}
        training_args:
          output_dir: somewhere
          learning_rate: 0.0002
          seed: 42
  dataset:
    train_file: train.jsonl
"""
_KEYS = (
    "id status strategy title command error seed strategy_sha256 data_fingerprint versions "
    "decisions model data hardware forecast actual"
)


def write_run(
    root: Path,
    events: Sequence[Event] | None = None,
    *,
    record: RunRecord | None = None,
    **changes: object,
) -> Path:
    """run.json and metrics.jsonl. changes: to run.json; None: without that key."""
    root.mkdir(exist_ok=True, parents=True)
    told = record or full_record(root)
    started = told.started
    assert started is not None
    values = {name: getattr(told, name) for name in _KEYS.split()}
    values |= {
        "started": started.isoformat(),
        "resumed": [time.isoformat() for time in told.resumed],
        **changes,
    }
    kept = {name: value for name, value in values.items() if value is not None}
    (root / "run.json").write_text(json.dumps(to_jsonable(kept)))
    written = events if events is not None else record.events if record else EVENTS
    (root / "metrics.jsonl").write_bytes(b"".join(map(event_line, written)))
    return root


def write_whole_run(root: Path, record: RunRecord, **changes: object) -> Path:
    """With everything that a finished run has besides: summary, comparison, strategy."""
    write_run(root, record=record, **changes)
    (root / "summary.json").write_text(json.dumps(record.summary.to_json()))
    (root / "comparison.json").write_text(json.dumps(to_jsonable(record.comparison)))
    (root / "strategy.yaml").write_text(record.strategy_yaml)
    return root


def write_rows(
    root: Path,
    step: int,
    losses: Sequence[float],
    *,
    tokens: Sequence[int] = (),
    file: str = "eval.jsonl",
) -> None:
    """The loss of every evaluation row after a step. tokens: ten a row if not said."""
    (root / "evaluations").mkdir(exist_ok=True)
    values = {
        "step": step,
        "sources": [f"{file}:{i + 1}" for i in range(len(losses))],
        "losses": losses,
        "tokens": tokens or [10] * len(losses),
    }
    (root / "evaluations" / f"step-{step}.json").write_text(json.dumps(values))


def add_events(root: Path, *events: Event) -> None:
    """Append to metrics.jsonl, as a run does."""
    with (root / "metrics.jsonl").open("ab") as file:
        file.write(b"".join(map(event_line, events)))


@contextlib.contextmanager
def is_going_on(root: Path) -> Iterator[None]:
    """As if a process trained in it."""
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
