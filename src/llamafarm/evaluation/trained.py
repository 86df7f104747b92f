"""A run directory, an adapter or a model directory on a dataset, alone or beside its base."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from llamafarm.data.prepare import prepare
from llamafarm.errors import ModelError
from llamafarm.evaluation.passes import OnRows, Passes
from llamafarm.evaluation.report import Measured
from llamafarm.evaluation.request import EvaluationTask
from llamafarm.evaluation.torch_model import measure_torch_model
from llamafarm.models.load import load_base_model, read_record
from llamafarm.models.record import ModelRecord
from llamafarm.models.resolve import resolve_model
from llamafarm.strategy.model import BaseModelSpec

LoadModel = Callable[[str], tuple[Any, Any]]


def measure_trained(
    source: str,
    task: EvaluationTask,
    *,
    load: LoadModel,
    passes: Passes,
    with_base: bool = False,
    at_most: int | None = None,
) -> tuple[Measured, Measured | None]:
    """The model that `source` names, then its base on the same tokens where that is asked for.

    load: from a source to model and tokenizer; at_most: no row is longer, in tokens. Raises
    DataError or ModelError.
    """
    model, tokenizer = load(source)
    if not tokenizer.chat_template:
        raise ModelError("this model has no chat template", hint="evaluate a trained model instead")
    record = read_record(source)
    context = getattr(model.config, "max_position_embeddings", None)
    request = task.rows(tokenizer.chat_template, record, context, at_most)
    data = prepare(request, tokenizer)

    def measure(measured: Any, on_rows: OnRows) -> Measured:
        return measure_torch_model(
            measured,
            tokenizer,
            data,
            max_length=request.max_length,
            generated_rows=task.generated_rows,
            max_new_tokens=task.max_new_tokens,
            on_rows=on_rows,
        )

    tuned = measure(model, passes.begin())
    if not with_base:
        return tuned, None
    base, as_base = _base_of(model, record, source)
    with as_base:
        return tuned, measure(base, passes.begin())


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
    # The name stands in the artifact: nobody asked to download it.
    base = resolve_model(
        BaseModelSpec(id=record.base_name), working_directory=Path.cwd(), allow_download=False
    )
    if base.fingerprint != record.base_fingerprint:
        raise ModelError(
            f"{record.base_name} holds other weights than {source} was trained from",
            hint="bring back those weights, or leave out --compare-base",
        )
    device = str(model.device)
    return load_base_model(base, dtype="float32", device=device, quantization=None), nullcontext()
