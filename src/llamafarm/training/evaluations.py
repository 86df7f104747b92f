"""The loss of every evaluation row, kept for the base, the best step and the last one.

What is measured anyway while the run goes on is enough to compare these three row by row
afterwards, and to tell a change from noise now.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from llamafarm.evaluation.answers import AnsweredRow
from llamafarm.evaluation.metrics import MetricValue
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.files import make_directory, write_json_atomic
from llamafarm.monitoring.events import MessageEvent
from llamafarm.training.job import TrainingJob

_NAME = re.compile(r"step-([0-9]+)\.json")
# Some millions of rows; and more tokens than a row can have.
_LARGEST_BYTES = 512 * 1024**2
_MOST_TOKENS = 2**53


@dataclass(frozen=True, slots=True)
class StepEvaluation:
    """One evaluation, row by row. sources: `file:line` of each row; answers: to the first rows,
    where a metric needs them; metrics: of these answers, by name.
    """

    step: int
    sources: tuple[str, ...]
    by_row: RowLosses
    answers: tuple[AnsweredRow, ...] = ()
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)


class RowLossStore:
    """Writes and reads `evaluations/` of one run. A disk that refuses costs the comparison, not the
    run.
    """

    def __init__(self, job: TrainingJob) -> None:
        self._emit = job.emit
        self._directory = job.directory.evaluations
        rows = job.data.eval
        self._sources = [str(rows.source(i)) for i in range(len(rows))] if rows else []

    def change_from(self, best_step: int, by_row: RowLosses) -> tuple[float | None, float | None]:
        """Mean change per token since the best step (0: since the base), and its standard error;
        None where the losses of then are not known.
        """
        best = read_evaluation(self._directory, best_step)
        if best is None or best.by_row.tokens != by_row.tokens:
            return None, None
        return by_row.change_from(best.by_row)

    def keep(
        self,
        step: int,
        by_row: RowLosses,
        answers: Sequence[AnsweredRow] = (),
        metrics: Mapping[str, MetricValue] | None = None,
    ) -> None:
        """Write those of the evaluation after `step`."""
        answered = {
            "answers": [asdict(row) for row in answers],
            "metrics": {name: asdict(value) for name, value in (metrics or {}).items()},
        }
        values = {
            "step": step,
            "sources": self._sources,
            "losses": [loss if math.isfinite(loss) else None for loss in by_row.losses],
            "tokens": by_row.tokens,
            "correct": by_row.correct,
            **(answered if answers else {}),
        }
        try:
            make_directory(self._directory)
            write_json_atomic(_file(self._directory, step), values)
        except OSError as error:
            text = f"the losses of the evaluation rows of step {step} are not kept: {error}"
            self._emit(MessageEvent(level="warning", text=text))

    def prune(self, best_step: int, last_step: int) -> None:
        """Remove all but the base's, the best's and the last's. For after a checkpoint is written:
        a run that goes on from an earlier one needs the best of then.
        """
        for path, of_step in _files(self._directory):
            if of_step not in (0, best_step, last_step):
                with contextlib.suppress(OSError):
                    path.unlink()


def read_evaluation(directory: Path, step: int) -> StepEvaluation | None:
    """None when it is not there, or is not what a run writes."""
    path = _file(directory, step)
    try:
        # A pipe in its place would be waited for without end.
        if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        losses = tuple(math.nan if loss is None else float(loss) for loss in values["losses"])
        tokens = tuple(int(count) for count in values["tokens"])
        correct = tuple(int(count) for count in values.get("correct", ()))
        sources = tuple(str(source) for source in values["sources"])
        answers = tuple(AnsweredRow(**row) for row in values.get("answers", ()))
        metrics = {
            str(name): MetricValue(float(found["value"]), tuple(map(float, found["by_row"])))
            for name, found in values.get("metrics", {}).items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        return None
    except RecursionError:  # an array in an array in an array
        return None
    if not len(losses) == len(tokens) == len(sources) or len(correct) not in (0, len(sources)):
        return None
    if not all(0 < count <= _MOST_TOKENS for count in tokens):
        return None
    by_row = RowLosses(losses, tokens, correct)
    return StepEvaluation(step, sources, by_row, answers, metrics)


def last_evaluated_step(directory: Path) -> int | None:
    """The last step whose evaluation is kept; None where there is none."""
    return max((step for _, step in _files(directory)), default=None)


def forget_evaluations_after(directory: Path, step: int) -> None:
    """Remove what a run that goes on from `step` will do again."""
    for path, of_step in _files(directory):
        if of_step > step:
            path.unlink(missing_ok=True)


def _files(directory: Path) -> Iterator[tuple[Path, int]]:
    paths = list(directory.iterdir()) if directory.is_dir() else []
    for path in paths:
        if match := _NAME.fullmatch(path.name):
            yield path, int(match[1])


def _file(directory: Path, step: int) -> Path:
    return directory / f"step-{step}.json"
