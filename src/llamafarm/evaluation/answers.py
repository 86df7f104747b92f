"""Answers of a model in torch to rows of tokens: greedy, and asked with the very tokens that
training saw before the last answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llamafarm.data.tokenized import TokenRows
from llamafarm.evaluation.generation import Generator
from llamafarm.evaluation.metrics import MetricValue


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """source: `file:line`; reference: the answer in the data."""

    source: str
    prompt: str
    reference: str
    answer: str


@dataclass(frozen=True, slots=True)
class Answered:
    """metrics: by name; one that failed is not there."""

    rows: tuple[AnsweredRow, ...] = ()
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)


def rows_with_a_prompt(rows: TokenRows, at_most: int) -> list[int]:
    """The first ones: plain text has no question to ask."""
    asked = (row for row in range(len(rows)) if rows.conversation_text(row)[0])
    return list(itertools.islice(asked, at_most))


def answer_row(
    generator: Generator,
    rows: TokenRows,
    row: int,
    max_new_tokens: int,
    *,
    max_seconds: float | None = None,
) -> AnsweredRow:
    """max_seconds: the answer ends where it takes longer."""
    prompt_ids: Sequence[int] = rows.input_ids(row)[
        : _last_answer_start(rows.trained(row))
    ].tolist()
    answer = generator.continue_tokens(
        prompt_ids, max_new_tokens=max_new_tokens, max_seconds=max_seconds
    )
    prompt, reference = rows.conversation_text(row)
    return AnsweredRow(str(rows.source(row)), prompt, reference, answer.strip())


def _last_answer_start(trained: npt.NDArray[np.bool_]) -> int:
    """Index of the first token of the last trained span."""
    starts = np.flatnonzero(np.diff(trained.astype(np.int8)) == 1)
    return int(starts[-1]) + 1
