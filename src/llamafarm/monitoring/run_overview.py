"""What a list says of a run: a line of its record, or why it has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llamafarm.monitoring.run_record import RunRecord

UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class RunOverview:
    """One run. name: its path below the directory that is listed; rows: training rows; total_steps:
    planned, 0 where not known; change: of the eval loss against the base, in percent.

    status: as RunRecord has it, or `unreadable`; problems: what could not be read. None and empty:
    not known, or not measured.
    """

    name: str
    root: Path
    status: str
    title: str = ""
    started: datetime | None = None
    model: str = ""
    rows: int | None = None
    steps: int = 0
    total_steps: int = 0
    base_eval_loss: float | None = None
    eval_loss: float | None = None
    perplexity: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int = 0
    seconds: float = 0.0
    findings: int = 0
    problems: tuple[str, ...] = ()

    @property
    def change(self) -> float | None:
        """Of the eval loss against the base model's, in percent."""
        if self.eval_loss is None or not self.base_eval_loss:
            return None
        return 100 * (self.eval_loss / self.base_eval_loss - 1)


def overview_of(name: str, record: RunRecord) -> RunOverview:
    """The line of a record."""
    summary = record.summary
    if not record.status and record.unread:
        return RunOverview(name, record.root, UNREADABLE, problems=record.unread)
    return RunOverview(
        name=name,
        root=record.root,
        status=record.status or "unknown",
        title=record.title,
        started=_aware(record.started),
        model=record.model.requested if record.model else "",
        rows=record.data.train.rows if record.data else None,
        steps=summary.steps,
        total_steps=record.start.total_steps if record.start else 0,
        base_eval_loss=_finite(summary.base_eval_loss),
        eval_loss=_finite(summary.eval_loss),
        perplexity=_finite(summary.perplexity),
        tokens_per_second=_finite(summary.tokens_per_second),
        peak_memory_bytes=summary.peak_memory_bytes,
        seconds=record.seconds,
        findings=sum(bool(finding.advice) for finding in summary.findings),
        problems=record.unread,
    )


def _aware(time: datetime | None) -> datetime | None:
    """A time without a zone, which no version writes, is taken for UTC: they can be ordered."""
    return time.replace(tzinfo=UTC) if time and time.tzinfo is None else time


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


_LAST = math.inf
SORT_KEYS: Mapping[str, Callable[[RunOverview], tuple[float | str, ...]]] = {
    "started": lambda run: (-run.started.timestamp() if run.started else _LAST,),
    "name": lambda run: (),
    "status": lambda run: (run.status,),
    "loss": lambda run: (_LAST if run.eval_loss is None else run.eval_loss,),
    "change": lambda run: (_LAST if run.change is None else run.change,),
    "time": lambda run: (run.seconds or _LAST,),
    "speed": lambda run: (-run.tokens_per_second if run.tokens_per_second else _LAST,),
}
"""What a list can be sorted by: the newest, lowest or fastest first; what is not known last."""


def sort_runs(runs: Iterable[RunOverview], by: str) -> tuple[RunOverview, ...]:
    """Equal ones by name. by: a key of SORT_KEYS."""
    key = SORT_KEYS[by]
    return tuple(sorted(runs, key=lambda run: (*key(run), run.name)))
