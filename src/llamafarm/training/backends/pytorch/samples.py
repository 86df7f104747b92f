"""A few evaluation rows as the base and the kept model answer them, when a run has ended.

Short and bounded in time: for a person to look at, not for a score.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from llamafarm.evaluation.answers import answer_row, rows_with_a_prompt
from llamafarm.evaluation.generation import Generator
from llamafarm.monitoring.comparison import Sample, SampleAnswer
from llamafarm.monitoring.events import MessageEvent
from llamafarm.planning.plan import SAMPLE_ROWS, SAMPLE_SECONDS, SAMPLE_SHARE, SAMPLE_TOKENS
from llamafarm.training.backends.pytorch.model import TrainableModel
from llamafarm.training.job import TrainingJob
from llamafarm.training.state import LoopState


def samples_at_the_end(
    job: TrainingJob,
    model: Callable[[], TrainableModel],
    state: LoopState,
    on_rows: Callable[[int, int], None],
) -> tuple[Sample, ...]:
    """As sample_answers, of the model that the call gives; none, and a line, where that fails: the
    run is over and saved, and samples are not worth losing it.
    """
    try:
        return sample_answers(job, model(), state, on_rows)
    except Exception as error:  # a template, a tokenizer or a device may raise anything
        text = f"there are no sample answers: {type(error).__name__}: {str(error)[:160]}"
        job.emit(MessageEvent(level="warning", text=text))
        return ()


def sample_answers(
    job: TrainingJob,
    trainable: TrainableModel,
    state: LoopState,
    on_rows: Callable[[int, int], None],
) -> tuple[Sample, ...]:
    """Greedy answers to the first evaluation rows. Leaves the weights of `final_model/` in memory.

    The base answers too where it is still there, under an adapter that trains no bias. None where a
    signal came, or the time is up before the first row.
    """
    rows = job.data.eval
    if job.plan.evaluation.answer_metrics:  # the evaluations have answers already
        return ()
    asked = rows_with_a_prompt(rows, SAMPLE_ROWS) if rows is not None else []
    if rows is None or not asked:
        return ()
    # The last step counts as the best one where it is both, as in the table.
    is_best = job.plan.evaluation.load_best or state.best_step == state.step
    kept = "best" if state.best_step and is_best else "last"
    if kept == "best" and state.best_step != state.step:
        trainable.load_weights(job.directory.final_model)
    base = _base(trainable, job)
    models: dict[str, Callable[[], AbstractContextManager[Any]]] = {"base": base} if base else {}
    models[kept] = contextlib.nullcontext
    generator = Generator(trainable.model, job.tokenizer)
    ends_at = time.monotonic() + max(SAMPLE_SECONDS, SAMPLE_SHARE * state.seconds)
    samples: list[Sample] = []
    for done, row in enumerate(asked):
        on_rows(done, len(asked))
        if job.stop.received or time.monotonic() >= ends_at:
            break
        answers = []
        for waiting, (name, as_model) in zip(
            range(len(models), 0, -1), models.items(), strict=True
        ):
            # What is left is for all of them: one that is slow does not cut off the next.
            left = max(0.1, (ends_at - time.monotonic()) / waiting)
            with as_model():
                given = answer_row(generator, rows, row, SAMPLE_TOKENS, max_seconds=left)
            answers.append(SampleAnswer(name, given.answer))
        prompt, expected = rows.conversation_text(row)
        samples.append(Sample(str(rows.source(row)), prompt, expected, tuple(answers)))
    return tuple(samples)


def _base(
    trainable: TrainableModel, job: TrainingJob
) -> Callable[[], AbstractContextManager[Any]] | None:
    """The base is the model with its adapter switched off; a full run has no base left, and a bias
    that was trained stays in it.
    """
    model: Any = trainable.model
    if job.plan.adapter is None or job.plan.adapter.bias != "none":
        return None
    switched_off: Callable[[], AbstractContextManager[Any]] = model.disable_adapter
    return switched_off
