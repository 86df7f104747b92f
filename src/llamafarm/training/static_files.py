"""What a checkpoint and a finished model hold beside weights and state."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llamafarm.data.serving import serving_facts
from llamafarm.models.record import RECORD_FILE, ModelRecord
from llamafarm.planning.plan import TrainingPlan


def static_files(
    plan: TrainingPlan, tokenizer: Any, save_config: Callable[[Path], None]
) -> dict[str, bytes]:
    """Names and contents. save_config: writes the configurations of the model into a directory."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tokenizer.save_pretrained(directory)
        save_config(directory)
        files = {p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.is_file()}
    serving = serving_facts(tokenizer, plan.data.chat_template)
    record = ModelRecord(
        base_requested=plan.model.source.requested,
        base_name=plan.model.source.name,
        base_fingerprint=plan.model.source.fingerprint,
        base_dtype=plan.model.dtype,
        strategy=plan.strategy_id,
        system_prompt=plan.data.system_prompt,
        max_length=plan.max_length,
        base_quantization=None if plan.quantization is None else asdict(plan.quantization),
        add_bos=serving.add_bos,
        end_token_id=serving.end_token_id,
        stop_words=plan.stop_words,
    )
    # The template that made the training rows, whatever the tokenizer came with.
    files["chat_template.jinja"] = plan.data.chat_template.encode()
    return files | {RECORD_FILE: record.to_bytes()}
