"""The two data sets, as token ids and labels: made once, and fed to every engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench.spec import IGNORED_LABEL, Row

if TYPE_CHECKING:
    from llamafarm.data.tokenized import TokenRows
    from llamafarm.models.source import ModelSource

ROOT = Path(__file__).resolve().parent.parent
MEDICAL_QA = ROOT / "demos" / "datasets" / "medical" / "medical_qa.jsonl"
MAX_LENGTH = 512
MEDIAN_LENGTH = 90
LENGTH_SIGMA = 1.0
"""Standard deviation of log(length). 1.0 gives the spread of instruction data such as Alpaca's."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows in training order, and rows that no engine trains on."""

    name: str
    title: str
    train: tuple[Row, ...]
    held_out: tuple[Row, ...]


def packaged_model() -> ModelSource:
    """The demo's base model as a local directory."""
    from llamafarm.models.resolve import resolve_model
    from llamafarm.strategy.model import BaseModelSpec

    return resolve_model(BaseModelSpec(), working_directory=ROOT, allow_download=False)


def datasets(
    model: ModelSource, num_train: int, num_held_out: int, seed: int
) -> tuple[Dataset, ...]:
    """The demo's rows as they are, and rows of varied lengths made from the same text."""
    rows = medical_rows(model)
    wanted = num_train + num_held_out
    if len(rows) < wanted:
        raise ValueError(f"{MEDICAL_QA.name} has {len(rows)} rows, and {wanted} are needed")
    lengths = varied_lengths(wanted, seed)
    varied = rows_of_lengths(rows, lengths)
    return (
        Dataset("uniform", "Uniform: the demo's rows", rows[:num_train], rows[num_train:wanted]),
        Dataset("varied", "Varied lengths", varied[:num_train], varied[num_train:]),
    )


def medical_rows(model: ModelSource) -> tuple[Row, ...]:
    """The demo's data through this project's own data room, in the order of the file."""
    from llamafarm.data.prepare import prepare
    from llamafarm.data.request import DataRequest
    from llamafarm.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model.directory)
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise TypeError(f"{model.name} has no chat template")
    request = DataRequest(
        train_location=MEDICAL_QA,
        eval_location=None,
        test_location=None,
        eval_wanted=False,
        eval_fraction=0.0,
        chat_template=template,
        max_length=MAX_LENGTH,
        seed=0,
    )
    return rows_of(prepare(request, tokenizer).train)


def rows_of(tokens: TokenRows) -> tuple[Row, ...]:
    """Token rows as ids and labels."""
    return tuple(
        labelled(tokens.input_ids(i).tolist(), tokens.trained(i).tolist())
        for i in range(len(tokens))
    )


def labelled(input_ids: Sequence[int], trained: Sequence[bool]) -> Row:
    """Labels are the ids themselves where trained."""
    labels = (
        token if scored else IGNORED_LABEL for token, scored in zip(input_ids, trained, strict=True)
    )
    return Row(tuple(input_ids), tuple(labels))


def varied_lengths(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Log-normal lengths in tokens, cut at MAX_LENGTH."""
    random = np.random.default_rng(seed)
    lengths = np.exp(random.normal(np.log(MEDIAN_LENGTH), LENGTH_SIGMA, count))
    return np.minimum(np.rint(lengths), MAX_LENGTH).astype(np.int64)


def rows_of_lengths(rows: Sequence[Row], lengths: npt.NDArray[np.int64]) -> tuple[Row, ...]:
    """Rows with the questions of `rows` and answers that run on through the following rows'
    answers.

    An answer has at least one token before its end-of-turn token, so a row is never shorter than
    its question plus two tokens.
    """
    return tuple(
        row_of_length(rows[number % len(rows)], _answer_tokens(rows, number), int(length))
        for number, length in enumerate(lengths)
    )


def row_of_length(row: Row, answer: Iterator[int], length: int) -> Row:
    """The row's prompt, `answer` as far as it is needed, and the row's end-of-turn token."""
    start, end = _trained_span(row)
    prompt = row.input_ids[:start]
    size = max(1, length - len(prompt) - 1)
    body = tuple(token for token, _ in zip(answer, range(size), strict=False))
    tail = row.input_ids[end - 1 : end]
    ids = (*prompt, *body, *tail)
    return labelled(ids, [False] * len(prompt) + [True] * (len(body) + 1))


def _answer_tokens(rows: Sequence[Row], first: int) -> Iterator[int]:
    """Answers without their end-of-turn token, from row `first` on, around and around."""
    for number in cycle(range(first, first + len(rows))):
        row = rows[number % len(rows)]
        start, end = _trained_span(row)
        yield from row.input_ids[start : end - 1]


def _trained_span(row: Row) -> tuple[int, int]:
    """First trained position, and one past the last."""
    trained = [i for i, label in enumerate(row.labels) if label != IGNORED_LABEL]
    return trained[0], trained[-1] + 1
