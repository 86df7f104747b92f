"""`evaluate`: a finished model on a file of rows, alone or beside its base."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from llamafarm.data.prepare import prepare
from llamafarm.data.request import DataRequest
from llamafarm.data.tokenized import TokenRows
from llamafarm.errors import DataError, ModelError
from llamafarm.evaluation.loss import LossResult
from llamafarm.evaluation.report import EvaluationReport, ModelScores, compare, score
from llamafarm.models.load import load_base_model
from llamafarm.models.packed import use_packed_attention
from llamafarm.models.packing_probe import probe_packing
from llamafarm.models.record import ModelRecord, read_record
from llamafarm.models.resolve import resolve_model
from llamafarm.strategy.model import BaseModelSpec

_BATCH_SIZE = 8
_LONGEST = 4096
_MAX_ANSWER_TOKENS = 256


def evaluate_source(
    source: str,
    model: Any,
    tokenizer: Any,
    dataset: Path,
    *,
    working_directory: Path,
    bundled_data: Path | None,
    compare_base: bool,
    generated_rows: int,
    on_rows: Callable[[int, int], None],
) -> EvaluationReport:
    """Scores of the model that `source` names, on every row of `dataset`.

    on_rows: rows done and rows in all, over every pass. Raises DataError or ModelError.
    """
    file = _find_dataset(dataset, working_directory, bundled_data)
    record = read_record(source)
    rows = prepare(_request(file, tokenizer, model, record), tokenizer).train
    passes = 2 if compare_base else 1
    total = passes * (len(rows) + min(generated_rows, len(rows)))
    done_before = 0

    def one_pass(scored: Any) -> tuple[ModelScores, LossResult]:
        nonlocal done_before
        result = _score(
            scored, tokenizer, rows, generated_rows, lambda done: on_rows(done_before + done, total)
        )
        done_before += total // passes
        return result

    tuned, tuned_loss = one_pass(model)
    if not compare_base:
        return EvaluationReport(source, str(file), len(rows), tuned_loss.trained_tokens, tuned)
    base_model, as_base = _base_of(model, record, source)
    with as_base:
        base, base_loss = one_pass(base_model)
    paired = compare(tuned_loss, base_loss)
    return EvaluationReport(
        source, str(file), len(rows), tuned_loss.trained_tokens, tuned, base, paired
    )


def _score(
    model: Any, tokenizer: Any, rows: TokenRows, generated_rows: int, on_rows: Callable[[int], None]
) -> tuple[ModelScores, LossResult]:
    packed = probe_packing(model.config).packed
    if packed:
        use_packed_attention(model.get_base_model() if hasattr(model, "get_base_model") else model)
    return score(
        model,
        tokenizer,
        rows,
        packed=packed,
        batch_size=_BATCH_SIZE,
        generated_rows=generated_rows,
        max_new_tokens=_MAX_ANSWER_TOKENS,
        on_rows=on_rows,
    )


def _base_of(
    model: Any, record: ModelRecord, source: str
) -> tuple[Any, AbstractContextManager[Any]]:
    """The same base weights: an adapter is switched off, a full model's base is loaded beside
    it.
    """
    if hasattr(model, "disable_adapter"):
        return model, model.disable_adapter()
    if not record.base_name:
        raise ModelError(
            f"{source} does not say which base it was trained from",
            hint="leave out --compare-base, or evaluate the base model by its own name",
        )
    base = resolve_model(BaseModelSpec(id=record.base_name), working_directory=Path.cwd())
    if base.fingerprint != record.base_fingerprint:
        raise ModelError(
            f"{record.base_name} holds other weights than {source} was trained from",
            hint="bring back those weights, or leave out --compare-base",
        )
    device = str(model.device)
    return load_base_model(base, dtype="float32", device=device, quantization=None), nullcontext()


def _request(file: Path, tokenizer: Any, model: Any, record: ModelRecord) -> DataRequest:
    """The rows as training would have made them: same template, same system prompt, same length
    limit.
    """
    context = int(getattr(model.config, "max_position_embeddings", _LONGEST) or _LONGEST)
    if not tokenizer.chat_template:
        raise ModelError("this model has no chat template", hint="evaluate a trained model instead")
    return DataRequest(
        train_location=file,
        eval_location=None,
        test_location=None,
        eval_wanted=False,
        eval_fraction=0.0,
        chat_template=tokenizer.chat_template,
        max_length=record.max_length or min(context, _LONGEST),
        seed=0,
        system_prompt=record.system_prompt,
        shuffle=False,
    )


def _find_dataset(dataset: Path, working_directory: Path, bundled_data: Path | None) -> Path:
    """The working directory first, then the bundled demo data by bare name."""
    from llamafarm.planning.locations import find_data_file

    found = find_data_file(str(dataset), (working_directory,), bundled_data)
    if found is None:
        near = difflib.get_close_matches(
            dataset.name, [p.name for p in working_directory.iterdir()], n=1
        )
        hint = (
            f"did you mean {near[0]}?"
            if near
            else "give the path of a file with rows to evaluate on"
        )
        raise DataError(f"{dataset} does not exist", hint=hint)
    return found
