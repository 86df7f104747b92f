"""A model in torch on rows of tokens: loss over all of them, answers to the first ones."""

from __future__ import annotations

from typing import Any

from llamafarm.data.summary import Cuts
from llamafarm.data.tokenized import PreparedData
from llamafarm.evaluation.answers import answer_row, rows_with_a_prompt
from llamafarm.evaluation.generation import Generator
from llamafarm.evaluation.loss import evaluate_loss
from llamafarm.evaluation.passes import OnRows
from llamafarm.evaluation.report import (
    Measured,
    Sample,
    make_sample,
    model_scores,
    row_warnings,
)
from llamafarm.models.packed import use_packed_attention
from llamafarm.models.packing_probe import probe_packing

_BATCH_SIZE = 8


def measure_torch_model(
    model: Any,
    tokenizer: Any,
    data: PreparedData,
    *,
    max_length: int,
    generated_rows: int,
    max_new_tokens: int,
    on_rows: OnRows,
) -> Measured:
    """Loss over all training rows of `data`, then greedy answers to the first `generated_rows`.

    max_length: the limit that the rows were made with. on_rows: rows done and rows in all, those of
    both passes added up.
    """
    rows = data.train
    asked = rows_with_a_prompt(rows, generated_rows)
    total = len(rows) + len(asked)
    packed = probe_packing(model.config).packed
    if packed:
        use_packed_attention(model.get_base_model() if hasattr(model, "get_base_model") else model)
    losses = evaluate_loss(
        model,
        rows,
        batch_size=_BATCH_SIZE,
        packed=packed,
        device=model.device,
        on_batch=lambda done: on_rows(done, total),
    )
    samples: list[Sample] = []
    generator = Generator(model, tokenizer)
    for row in asked:
        given = answer_row(generator, rows, row, max_new_tokens)
        samples.append(make_sample(given.source, given.prompt, given.reference, given.answer))
        on_rows(len(rows) + len(samples), total)
    report = data.report
    return Measured(
        model_scores(losses, samples),
        losses.trained_tokens,
        tuple(str(rows.source(row)) for row in range(len(rows))),
        losses.by_row,
        max_length,
        row_warnings(
            Cuts(report.truncated, report.rows_truncated, report.trained_tokens_cut),
            report.dropped,
            len(rows),
            max_length,
            rows_dropped=report.rows_dropped,
        ),
    )
