"""Models with their weights: a base to train, or what a run left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamafarm.errors import ModelError
from llamafarm.models.config import read_json, refuse_links_outside, sanitised_copy
from llamafarm.models.directory import ADAPTER_CONFIG, check_model_directory
from llamafarm.models.faults import model_faults
from llamafarm.models.quantised_base import requantise_linear_layers
from llamafarm.models.record import ModelRecord, read_model_record
from llamafarm.models.resolve import resolve_model
from llamafarm.models.source import ModelSource
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.models.weights import load_weights
from llamafarm.strategy.model import BaseModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from llamafarm.planning.plan import Dtype, QuantizationPlan

_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load_base_model(
    source: ModelSource,
    *,
    dtype: Dtype,
    device: str,
    quantization: QuantizationPlan | None = None,
    attn_implementation: str = "sdpa",
    use_cache: bool = True,
) -> PreTrainedModel:
    """The base model in evaluation mode, its weights in `dtype` on `device`.

    quantization: linear layers held by bitsandbytes instead. use_cache False: no key-value cache,
    as in training. Raises ModelError for weights that do not fit the configuration, RunError when
    memory does not suffice.
    """
    return load_weights(
        source.directory, dtype, device, quantization, attn_implementation, use_cache
    )


def load_finished_model(
    source: str | Path, *, dtype: Dtype = "float32", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model that `source` names (see find_model_directory), ready to be asked.

    An adapter is put on the base it names, as that was while training: quantised, if it was. Raises
    ModelError when that base cannot be had, or holds other weights than the adapter was trained on.
    """
    directory = find_model_directory(str(source))
    if not (directory / ADAPTER_CONFIG).is_file():
        check_model_directory(directory)
        return load_weights(directory, dtype, device), load_tokenizer(directory)
    base = base_of_adapter(directory).directory
    weights = load_weights(base, dtype, device)
    record = read_model_record(directory)
    if record.base_quantization is not None:
        requantise_linear_layers(weights, record.base_quantization, record.base_dtype or "float32")
    model = _with_adapter(weights, directory, device)
    has_tokenizer = (directory / "tokenizer_config.json").is_file()
    return model, load_tokenizer(directory if has_tokenizer else base)


def find_model_directory(source: str, *, working_directory: Path | None = None) -> Path:
    """The directory to load for what a user typed.

    That is a run directory (its `final_model`), a checkpoint, an adapter, a full model, a `.gguf`
    file, or a base model's name. Raises ModelError that says what was found instead.
    """
    start = working_directory or Path.cwd()
    path = start / Path(source).expanduser()
    if path.is_dir():
        return _model_directory_of(path)
    return resolve_model(BaseModelSpec(id=source), working_directory=start).directory


def read_record(source: str) -> ModelRecord:
    """As read_model_record, for whatever names a finished model."""
    return read_model_record(find_model_directory(source))


def _model_directory_of(path: Path) -> Path:
    """`final_model` of a run directory; a directory that holds a model itself as it is."""
    if (path / "final_model").is_dir():
        return path / "final_model"
    if (path / ADAPTER_CONFIG).is_file() or (path / "config.json").is_file():
        return path
    root = path.parent if path.name == "checkpoints" else path
    newest = max((root / "checkpoints").glob("checkpoint-*"), key=_step, default=None)
    if newest is not None:
        raise ModelError(
            f"{root} is a run that has no final_model yet",
            hint=f"finish it with train --resume, or take its newest checkpoint: {newest}",
        )
    raise ModelError(
        f"{path} holds no model",
        hint=(
            "name a run directory, final_model/, checkpoints/checkpoint-N, or a directory with "
            "config.json"
        ),
    )


def base_of_adapter(directory: Path) -> ModelSource:
    """The base that an adapter was trained on, checked against the fingerprint beside the adapter.

    Nothing is downloaded: the adapter names the base, not the user. Raises ModelError when it is
    not on this machine, or when its weights are others.
    """
    refuse_links_outside(directory)
    adapter = read_json(directory / ADAPTER_CONFIG)
    name = adapter.get("base_model_name_or_path")
    if not name:
        raise ModelError(
            f"{directory / ADAPTER_CONFIG} does not say which base model the adapter belongs to"
        )
    spec = BaseModelSpec(id=str(name), revision=adapter.get("revision") or None)
    # A relative path starts beside the file that names it, as in a strategy file.
    source = resolve_model(
        spec,
        working_directory=Path.cwd(),
        strategy_file=directory.absolute() / ADAPTER_CONFIG,
        allow_download=False,
    )
    expected = read_model_record(directory).base_fingerprint
    # An adapter of another tool carries no fingerprint: then the name has to be enough, and a
    # stand-in is not what it names.
    if expected != source.fingerprint if expected else source.notice:
        raise _other_base(directory, source, expected)
    return source


def _other_base(directory: Path, source: ModelSource, expected: str | None) -> ModelError:
    wanted = expected[:12] if expected else f"those of {source.requested}"
    return ModelError(
        f"the adapter in {directory} was trained on other weights than those in {source.directory} "
        f"(expected {wanted}, found {source.fingerprint[:12]})",
        hint="bring back the base model as it was, or train the adapter again on this one",
    )


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rsplit("-", 1)[-1]
    return int(number) if number.isdigit() else -1


def _with_adapter(base: Any, directory: Path, device: str) -> PreTrainedModel:
    from peft import PeftConfig, PeftModel

    if not (directory / _ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"{directory} has no {_ADAPTER_WEIGHTS}",
            hint="adapters are read from safetensors only; save this one again with a current PEFT",
        )
    summary = f"the adapter in {directory} does not fit its base model"
    with sanitised_copy(directory) as copy, model_faults(summary):
        config = PeftConfig.from_pretrained(copy)
        model = PeftModel.from_pretrained(base, directory, config=config, torch_device=device)
    if model.active_peft_config.is_prompt_learning:
        raise ModelError(
            f"{directory} holds learned prompts ({model.active_peft_config.peft_type.value}), "
            "not an adapter of the weights",
            hint="LoRA adapters and full models are read",
        )
    return model.eval()
