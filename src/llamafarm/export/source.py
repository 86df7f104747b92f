"""What is exported: base, adapter, tokenizer and chat template, found from what the user typed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import ModelError
from llamafarm.export.merge import MergedWeights
from llamafarm.export.quantised import QuantisedBase
from llamafarm.export.safetensors_writer import merged_config
from llamafarm.export.weights import StoredWeights, WeightSource
from llamafarm.models.config import read_json
from llamafarm.models.directory import ADAPTER_CONFIG, check_model_directory
from llamafarm.models.load import base_of_adapter, find_model_directory
from llamafarm.models.record import ModelRecord, read_model_record

_TEMPLATE_FILE = "chat_template.jinja"
_TOKENIZER_FILE = "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A trained model as files. directory: what was trained; base: where its base's weights are
    (the same for a full model); base_name: what a model card calls the base, empty if unknown;
    tokenizer: the directory that holds it.
    """

    requested: str
    directory: Path
    base: Path
    is_adapter: bool
    base_name: str
    tokenizer: Path
    record: ModelRecord

    @property
    def run(self) -> Path | None:
        """The run directory that the model lies in, where there is one."""
        for parent in (self.directory.parent, self.directory.parent.parent):
            if (parent / "run.json").is_file() and (parent / "strategy.yaml").is_file():
                return parent
        return None

    @property
    def chat_template(self) -> str | None:
        """The template that the model was trained with; None where it has none. Raises ModelError
        where it is no text.
        """
        file = self.tokenizer / _TEMPLATE_FILE
        if file.is_file():
            return _text_of(file)
        config = self.tokenizer / _TOKENIZER_FILE
        return (
            _default_template(read_json(config).get("chat_template")) if config.is_file() else None
        )


@dataclass(frozen=True, slots=True)
class MergedModel:
    """Configuration and weights of base and adapter together."""

    config: Mapping[str, Any]
    weights: WeightSource


def find_source(requested: str, *, working_directory: Path) -> ExportSource:
    """A run directory, `final_model`, a checkpoint, an adapter, a full model, or a model's name.

    Raises ModelError that says what was found instead, or that base and adapter do not fit.
    """
    directory = find_model_directory(requested, working_directory=working_directory).absolute()
    record = read_model_record(directory)
    if not (directory / ADAPTER_CONFIG).is_file():
        check_model_directory(directory)
        is_path = (working_directory / Path(requested).expanduser()).exists()
        base_name = record.base_name or ("" if is_path else requested)
        return ExportSource(requested, directory, directory, False, base_name, directory, record)
    base = base_of_adapter(directory)
    has_tokenizer = (directory / _TOKENIZER_FILE).is_file()
    tokenizer = directory if has_tokenizer else base.directory
    name = base.requested if base.kind in ("local", "gguf") else base.name
    return ExportSource(requested, directory, base.directory, True, name, tokenizer, record)


def open_model(source: ExportSource) -> MergedModel:
    """The merged model; nothing of the weights is read yet. Raises ModelError with all misfits."""
    config = read_json(source.base / "config.json")
    base: WeightSource = StoredWeights.of_model(source.base)
    if not source.is_adapter:
        return MergedModel(config, base)
    quantization = source.record.base_quantization
    if quantization is not None:
        base = QuantisedBase(base, quantization, source.record.base_dtype or "float32")
    merged = MergedWeights(base, source.directory, config)
    return MergedModel(merged_config(config, merged.shapes, untied=merged.untied), merged)


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as fault:
        raise ModelError(
            f"{file} is not UTF-8 ({fault.reason} at byte {fault.start})",
            hint="bring back the file as it was when the model was trained",
        ) from fault


def _default_template(value: object) -> str | None:
    """tokenizer_config.json holds one template, or a list of named ones."""
    if isinstance(value, list):
        named = {str(t.get("name")): t.get("template") for t in value if isinstance(t, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise ModelError(f"the chat template is no text but {json.dumps(value)[:60]}")
    return value
