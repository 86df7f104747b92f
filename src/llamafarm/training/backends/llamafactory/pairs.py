"""Rows with two answers: the chosen side is the run's data, the rejected one is read from the same
files again, row by row.
"""

from __future__ import annotations

from dataclasses import replace

from llamafarm.data.prepare import prepare
from llamafarm.data.request import DataRequest, Mixture
from llamafarm.data.tokenized import TokenRows
from llamafarm.errors import DataError, count_of, listed
from llamafarm.monitoring.events import WorkEvent
from llamafarm.training.backends.llamafactory.rows import PairedRows, Side
from llamafarm.training.backends.llamafactory.translate import EVAL, TRAIN
from llamafarm.training.job import TrainingJob

_ROWS_NAMED = 5


def paired_data(job: TrainingJob) -> dict[str, Side]:
    """Both sides of the run, by TRAIN and EVAL. Raises DataError where a row has no usable second
    answer.
    """
    request = job.plan.data
    sides: dict[str, Side] = {TRAIN: _pair(job, job.data.train, _rejected(job, request))}
    if job.plan.evaluation.enabled and job.data.eval is not None:
        place = request.eval_location
        its_own = request if place is None else replace(request, train_location=place)
        sides[EVAL] = _pair(job, job.data.eval, _rejected(job, its_own))
    return sides


def _rejected(job: TrainingJob, request: DataRequest) -> TokenRows:
    """Every row of the files, undivided and in no order of its own."""
    place = request.train_location
    if isinstance(place, Mixture):
        place = Mixture(tuple(replace(file, weight=1.0) for file in place.files))
    whole = replace(
        request,
        train_location=place,
        eval_location=None,
        test_location=None,
        eval_wanted=False,
        eval_fraction=0.0,
        eval_rows=None,
        eval_auto=False,
        max_samples=None,
        remove_duplicates=False,
        group_by=None,
        stratify_by=None,
        answers="rejected",
    )
    return prepare(
        whole,
        job.tokenizer,
        work=lambda what, done, total: job.emit(WorkEvent(what=what, done=done, total=total)),
    ).train


def _pair(job: TrainingJob, chosen: TokenRows, rejected: TokenRows) -> PairedRows:
    place = {rejected.source(row): row for row in range(len(rejected))}
    sources = [chosen.source(row) for row in range(len(chosen))]
    without = [str(source) for source in sources if source not in place]
    if without:
        raise DataError(
            f"{count_of(len(without), 'row')} of {job.plan.strategy_id} have a chosen answer that "
            f"can be trained on, and a rejected one that cannot: {listed(without, _ROWS_NAMED)}",
            hint="leave these rows out, or set a larger max_seq_length",
        )
    pairs = [(row, place[source]) for row, source in enumerate(sources)]
    return PairedRows(chosen, rejected, pairs)
