"""Metrics of generated answers, inside an evaluation: a bounded number of rows, asked one by one.

Greedy, so that nothing is drawn: what is trained is the same with and without them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llamafarm.data.tokenized import TokenRows
from llamafarm.evaluation.answers import Answered, AnsweredRow, answer_row, rows_with_a_prompt
from llamafarm.evaluation.generation import Generator
from llamafarm.evaluation.metrics import MetricError, MetricValue, find_metric, measure
from llamafarm.hardware.out_of_memory import is_out_of_memory, release_memory
from llamafarm.monitoring.events import MessageEvent
from llamafarm.planning.plan import ANSWER_TOKENS, ANSWERED_ROWS
from llamafarm.training.backends.pytorch.model import TrainableModel
from llamafarm.training.job import TrainingJob


class AnswerMetrics:
    """Of one run. rows: how many are answered in every evaluation."""

    def __init__(self, job: TrainingJob, trainable: TrainableModel) -> None:
        self._job, self._trainable = job, trainable
        self._names = job.plan.evaluation.answer_metrics
        data = job.data.eval
        self._asked = rows_with_a_prompt(data, ANSWERED_ROWS) if data and self._names else []

    @property
    def rows(self) -> int:
        """How many rows are answered in every evaluation."""
        return len(self._asked)

    def measure(self, step: int, on_rows: Callable[[int], None]) -> Answered:
        """on_rows: takes the rows done; what it raises ends this. What else goes wrong is told, and
        the run goes on without these metrics.
        """
        if not self._names:
            return Answered()
        data = self._job.data.eval
        if data is None or not self._asked:
            self._tell(step, "no evaluation row asks anything")
            return Answered()
        rows: list[AnsweredRow] = []
        for done, row in enumerate(self._asked, start=1):
            answer = self._answer(step, data, row)
            if answer is None:
                return Answered()
            rows.append(answer)
            on_rows(done)
        found: dict[str, MetricValue] = {}
        answers, references = [r.answer for r in rows], [r.reference for r in rows]
        for name in self._names:
            try:
                metric = find_metric(name, allow_custom=True, beside=[Path.cwd()])
                found[name] = measure(metric, answers, references)
            except MetricError as fault:
                self._tell(step, fault.text)
        return Answered(tuple(rows), found)

    def _answer(self, step: int, rows: TokenRows, row: int) -> AnsweredRow | None:
        """None where it cannot be had."""
        try:
            generator = Generator(self._trainable.model, self._job.tokenizer)
            return answer_row(generator, rows, row, ANSWER_TOKENS)
        except Exception as error:  # a template may raise anything; the loss is still measured
            if is_out_of_memory(error):
                release_memory()
            self._tell(step, f"{type(error).__name__}: {str(error)[:160]}")
            return None

    def _tell(self, step: int, why: str) -> None:
        text = f"metrics of answers are not measured at step {step}: {why}"
        self._job.emit(MessageEvent(level="warning", text=text))
