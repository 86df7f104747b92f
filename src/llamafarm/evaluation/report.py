"""A model on a dataset, and the same rows on its base: one report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llamafarm.data.tokenized import TokenRows
from llamafarm.evaluation.generation import Generator
from llamafarm.evaluation.loss import LossResult, evaluate_loss
from llamafarm.evaluation.text_metrics import exact_match, rouge_l


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as text: what was asked, what the data says, what the model says."""

    source: str
    prompt: str
    reference: str
    answer: str
    exact_match: bool
    rouge_l: float


@dataclass(frozen=True, slots=True)
class ModelScores:
    """Scores of one model. loss per trained token over all rows; exact_match, rouge_l over
    generated_rows rows.
    """

    loss: float
    perplexity: float
    accuracy: float
    exact_match: float
    rouge_l: float
    generated_rows: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class PairedRows:
    """The same rows under both models, by their mean loss: how many got better, worse, or
    stayed.
    """

    better: int
    worse: int
    same: int


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What `evaluate` answers. base and paired are None without --compare-base."""

    source: str
    dataset: str
    rows: int
    trained_tokens: int
    tuned: ModelScores
    base: ModelScores | None = None
    paired: PairedRows | None = None


def score(
    model: Any,
    tokenizer: Any,
    rows: TokenRows,
    *,
    packed: bool,
    batch_size: int,
    generated_rows: int,
    max_new_tokens: int,
    on_rows: Callable[[int], None] | None = None,
) -> tuple[ModelScores, LossResult]:
    """Loss over all rows, then greedy answers to the first `generated_rows` of them.

    on_rows is called with the number of rows done, those of both passes added up.
    """
    result = evaluate_loss(
        model, rows, batch_size=batch_size, packed=packed, device=model.device, on_batch=on_rows
    )
    samples = []
    generator = Generator(model, tokenizer)
    for row in _rows_with_a_prompt(rows)[:generated_rows]:
        samples.append(_sample(generator, rows, row, max_new_tokens))
        if on_rows is not None:
            on_rows(len(rows) + len(samples))
    count = max(len(samples), 1)
    return (
        ModelScores(
            loss=result.loss,
            perplexity=result.perplexity,
            accuracy=result.accuracy,
            exact_match=sum(s.exact_match for s in samples) / count,
            rouge_l=sum(s.rouge_l for s in samples) / count,
            generated_rows=len(samples),
            samples=tuple(samples),
        ),
        result,
    )


def compare(tuned: LossResult, base: LossResult) -> PairedRows:
    """Row by row: which model finds the answer more likely."""
    pairs = list(zip(tuned.row_losses, base.row_losses, strict=True))
    better = sum(t < b for t, b in pairs)
    worse = sum(t > b for t, b in pairs)
    return PairedRows(better, worse, len(pairs) - better - worse)


def _rows_with_a_prompt(rows: TokenRows) -> list[int]:
    """Plain text has no question to ask."""
    return [row for row in range(len(rows)) if rows.conversation_text(row)[0]]


def _last_answer_start(trained: npt.NDArray[np.bool_]) -> int:
    """Index of the first token of the last trained span."""
    starts = np.flatnonzero(np.diff(trained.astype(np.int8)) == 1)
    return int(starts[-1]) + 1


def _sample(generator: Generator, rows: TokenRows, row: int, max_new_tokens: int) -> Sample:
    """The prompt is the very tokens that training saw before the last answer."""
    prompt_ids = rows.input_ids(row)[: _last_answer_start(rows.trained(row))].tolist()
    answer = generator.continue_tokens(prompt_ids, max_new_tokens=max_new_tokens).strip()
    prompt, reference = rows.conversation_text(row)
    return Sample(
        source=str(rows.source(row)),
        prompt=prompt,
        reference=reference,
        answer=answer,
        exact_match=exact_match(answer, reference),
        rouge_l=rouge_l(answer, reference),
    )
