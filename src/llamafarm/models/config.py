"""config.json as transformers gets to see it: without anything that names code to run."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamafarm.errors import ModelError
from llamafarm.models.faults import model_faults

# Keys that make transformers or PEFT import Python that a repository names, download a compiled
# kernel or other weights, or read another file.
FORBIDDEN_KEYS = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_attn_implementation_internal",
        "_experts_implementation",
        "_experts_implementation_internal",
        "attn_implementation",
        "allow_all_kernels",
        "auto_map",
        "auto_mapping",
        "custom_generate",
        "custom_pipelines",
        "experts_implementation",
        "fast_tokenizer_files",
        "gguf_file",
        "kernel_config",
        "megatron_config",
        "megatron_core",
        "merges_file",
        "name_or_path",
        "_name_or_path",
        "runtime_config",
        "tokenizer_file",
        "transformers_weights",
        "trust_remote_code",
        "use_kernels",
        "use_pretrained_backbone",
        "vocab_file",
    }
)
_WEIGHT_SUFFIXES = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".py"}
)


# The largest that is known, a tokenizer's, has a tenth of it.
MAX_JSON_BYTES = 300_000_000
MAX_JSON_DEPTH = 100


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model directory. Raises ModelError when it is something else."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(
                f"{path} is larger than any file of its kind ({MAX_JSON_BYTES:,} bytes)",
                hint="download the model again",
            )
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as fault:
        raise ModelError(
            f"{path} is not valid JSON ({fault})", hint="download the model again"
        ) from fault
    except OSError as fault:
        raise ModelError(f"{path} cannot be read: {fault.strerror or fault}") from fault
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object", hint="download the model again")
    return value


def without_forbidden_keys(value: Any, depth: int = 0) -> Any:
    """A copy without FORBIDDEN_KEYS, at any depth. Raises ModelError beyond MAX_JSON_DEPTH."""
    if depth > MAX_JSON_DEPTH:
        raise ModelError(
            f"a configuration of the model is nested deeper than {MAX_JSON_DEPTH} levels",
            hint="download the model again",
        )
    if isinstance(value, dict):
        return {
            key: without_forbidden_keys(item, depth + 1)
            for key, item in value.items()
            if key not in FORBIDDEN_KEYS
        }
    if isinstance(value, list):
        return [without_forbidden_keys(item, depth + 1) for item in value]
    return value


def refuse_links_outside(directory: Path) -> None:
    """Raises ModelError for a small file of a model that is a link to somewhere else.

    What stands in a tokenizer, a template or a configuration is written into what is trained, so
    that a link would carry any file of this machine along. The Hub's cache, whose files are links,
    has them beside the directory.
    """
    real = directory.resolve()
    homes = [real]
    if real.parent.name == "snapshots":
        homes.append(real.parent.parent / "blobs")
    for file in sorted(directory.iterdir()):
        if file.suffix in _WEIGHT_SUFFIXES or not (file.is_symlink() and file.is_file()):
            continue
        target = file.resolve()
        if not any(target.is_relative_to(home) for home in homes):
            raise ModelError(
                f"{file} is a link to {target}, outside of the model",
                hint="copy the file itself there, if it belongs to the model",
            )


@contextlib.contextmanager
def sanitised_copy(directory: Path) -> Iterator[Path]:
    """A temporary directory with the small files: configurations rewritten, the rest linked.

    It holds no weights and no code, and it is gone after the block. Raises ModelError for a file
    that is a link to somewhere else.
    """
    refuse_links_outside(directory)
    with tempfile.TemporaryDirectory(prefix="llamafarm-model-") as name:
        copy = Path(name)
        for file in sorted(directory.iterdir()):
            if not file.is_file() or file.suffix in _WEIGHT_SUFFIXES:
                continue
            if file.name.endswith("config.json"):
                text = json.dumps(without_forbidden_keys(read_json(file)))
                (copy / file.name).write_text(text, encoding="utf-8")
            else:
                (copy / file.name).symlink_to(file.resolve())
        yield copy


def load_config(directory: Path) -> Any:
    """The transformers configuration of a model directory (a PreTrainedConfig).

    Raises ModelError for an architecture that needs code of its own, one that transformers does not
    know, one that is no causal language model, and for weights that are stored quantised.
    """
    raw = read_json(directory / "config.json")
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelError(
            f"{directory / 'config.json'} names no model_type",
            hint="this is not a transformers model; convert it, or take another one",
        )
    _refuse_quantised(raw, directory)
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise _unsupported(raw, model_type, directory)
    summary = f"{directory / 'config.json'} is not a usable {model_type} configuration"
    hint = "download the model again, or update transformers"
    with sanitised_copy(directory) as copy, model_faults(summary, hint=hint):
        config = AutoConfig.from_pretrained(copy, trust_remote_code=False, local_files_only=True)
    config._name_or_path = str(directory)
    _require_causal_language_model(config, directory)
    return config


def _refuse_quantised(raw: dict[str, Any], directory: Path) -> None:
    """At any depth: transformers looks into the configuration of the language model, too."""
    for quantised in _values_of("quantization_config", without_forbidden_keys(raw)):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        method = method or "unknown"
        raise ModelError(
            f"{directory} holds weights that are already quantised ({method})",
            hint=(
                "take the model's original weights; method type qlora quantises them while loading"
            ),
        )


def _values_of(key: str, value: Any) -> Iterator[Any]:
    """What stands under a key, at any depth; null is nothing."""
    if isinstance(value, dict):
        if value.get(key) is not None:
            yield value[key]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _values_of(key, item)


def _unsupported(raw: dict[str, Any], model_type: str, directory: Path) -> ModelError:
    import transformers

    if "auto_map" in raw:
        return ModelError(
            f"{directory} is a {model_type} model, which needs Python code from its repository; "
            "that is never run",
            hint="take a model whose architecture is part of transformers",
        )
    return ModelError(
        f"{directory} is a {model_type} model, which transformers {transformers.__version__} does "
        "not know",
        hint="a newer transformers may: pip install --upgrade transformers",
    )


def _require_causal_language_model(config: Any, directory: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    names = tuple(config.architectures or ())
    other_task = bool(names) and not any(_generates_text(name) for name in names)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.is_encoder_decoder or other_task:
        raise ModelError(
            f"{directory} is not a causal language model ({', '.join(names) or config.model_type})",
            hint=(
                "take a model that generates text, e.g. a Llama, Qwen, Mistral, Gemma or SmolLM "
                "model"
            ),
        )


def _generates_text(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
