"""Whether a directory holds a model that can be trained, and if not, everything that is missing."""

from __future__ import annotations

from pathlib import Path

from llamafarm.errors import ModelError, Problem
from llamafarm.models.config import read_json, refuse_links_outside
from llamafarm.models.fingerprint import weight_files

ADAPTER_CONFIG = "adapter_config.json"
# Any one of these sets of files makes a tokenizer.
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_INDEX = "model.safetensors.index.json"


def is_complete(directory: Path) -> bool:
    """Whether configuration, safetensors weights and a tokenizer are there."""
    try:
        check_model_directory(directory)
    except ModelError:
        return False
    return True


def check_model_directory(directory: Path) -> None:
    """Raises ModelError with all that is missing, with what the directory is instead of a base
    model, or with a file of it that lies elsewhere.
    """
    refuse_links_outside(directory)
    if (directory / ADAPTER_CONFIG).is_file():
        raise _adapter_given(directory)
    problems = [*_configuration(directory), *_weights(directory), *_tokenizer(directory)]
    if problems:
        raise ModelError(
            f"{directory} is not a complete model", problems, hint=_directory_hint(directory)
        )


def base_named_by_adapter(directory: Path) -> str:
    """What adapter_config.json names as its base; empty when it names none."""
    return str(read_json(directory / ADAPTER_CONFIG).get("base_model_name_or_path") or "")


def _configuration(directory: Path) -> list[Problem]:
    return [] if (directory / "config.json").is_file() else [Problem("config.json is missing")]


def _tokenizer(directory: Path) -> list[Problem]:
    if any(all((directory / name).is_file() for name in names) for names in _TOKENIZERS):
        return []
    return [Problem("the tokenizer is missing (tokenizer.json)")]


def _weights(directory: Path) -> list[Problem]:
    try:
        if not (directory / "model.safetensors").is_file():
            _check_index(directory / _INDEX)
        if weight_files(directory):
            return []
    except ModelError as fault:
        return [Problem(fault.summary, hint=fault.hint)]
    pickles = sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern))
    ggufs = sorted(file for file in directory.glob("*.gguf"))
    if pickles:
        return [pickled_weights(str(directory), pickles)]
    if ggufs:
        return [
            Problem(
                "the weights are in a .gguf file", hint=f"name that file: base_model: {ggufs[0]}"
            )
        ]
    return [Problem("the weights are missing (model.safetensors)")]


def _check_index(index: Path) -> None:
    """Raises ModelError for an index that names anything but files beside it."""
    names = read_json(index).get("weight_map") if index.is_file() else None
    for name in names.values() if isinstance(names, dict) else ():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
            raise ModelError(
                f"its index names {name!r}, which is no file beside it ({index.name})",
                hint="download the model again",
            )


def pickled_weights(name: str, files: list[str]) -> Problem:
    """Weights as pickle are refused: reading one can run any code."""
    target = f"{name.rstrip('/').rsplit('/', 1)[-1]}-safetensors"
    return Problem(
        f"the weights are pickle files ({', '.join(files[:3])}), which can run code when they are "
        "read",
        hint='if you trust them, convert them once: python -c "import transformers as t; '
        f"[c.from_pretrained('{name}').save_pretrained('{target}') "
        f'for c in (t.AutoModelForCausalLM, t.AutoTokenizer)]"   then base_model: ./{target}',
    )


def _adapter_given(directory: Path) -> ModelError:
    base = base_named_by_adapter(directory)
    return ModelError(
        f"{directory} is a LoRA adapter, not a base model"
        + (f"; its base is {base}" if base else ""),
        hint=f"train from its base: base_model: {base}" if base else "name a base model",
    )


def _directory_hint(directory: Path) -> str:
    if (directory / "final_model").is_dir():
        return (
            "this is a run directory; what it trained is in it: base_model: "
            f"{directory / 'final_model'}"
        )
    return (
        "download the model whole: hf download ORGANISATION/MODEL --local-dir DIR, then "
        "base_model: DIR"
    )
