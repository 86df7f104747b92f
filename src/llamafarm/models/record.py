"""`llamafarm.json`: what a trained model remembers about its training, beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

RECORD_FILE = "llamafarm.json"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """base_*: the weights it started from; base_quantization: how they were quantised while
    training (None: not at all); system_prompt: put before every conversation that had none;
    max_length: tokens a conversation could have; add_bos, end_token_id: how the rows that were
    trained on begin, and how their answers end (data/serving.py); stop_words: texts that end an
    answer too, as the strategy says. Fields are None for models made by other tools.
    """

    base_requested: str | None = None
    base_name: str | None = None
    base_fingerprint: str | None = None
    base_dtype: str | None = None
    strategy: str | None = None
    system_prompt: str | None = None
    max_length: int | None = None
    base_quantization: Mapping[str, Any] | None = None
    add_bos: bool | None = None
    end_token_id: int | None = None
    stop_words: Sequence[str] = ()

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()


def read_model_record(directory: Path) -> ModelRecord:
    """The record in a model directory; an empty one where there is none, or none that can be
    read.
    """
    try:
        values = json.loads((directory / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ModelRecord()
    known = {f.name for f in fields(ModelRecord)}
    return (
        ModelRecord(**{k: v for k, v in values.items() if k in known})
        if isinstance(values, dict)
        else ModelRecord()
    )
