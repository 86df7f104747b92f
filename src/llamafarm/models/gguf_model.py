"""A user's .gguf file as a base model: dequantised once, by transformers."""

from __future__ import annotations

import os
import shutil
from math import prod
from pathlib import Path
from typing import Any

from llamafarm.cache import build_once, cache_root
from llamafarm.errors import ModelError, OutputError, count_of
from llamafarm.hardware.facts import GIB
from llamafarm.models.faults import model_faults
from llamafarm.models.fingerprint import file_sha256
from llamafarm.models.gguf_file import GgufFile, read_gguf
from llamafarm.models.quiet import quiet_transformers

# Counts up whenever the files written here change, so that an older cache entry is not used.
_FORMAT_VERSION = 1
# llama.cpp's pre-tokenizers that split every digit off and then use GPT-2's words; transformers
# leaves the digits out.
_DIGIT_SPLITTING = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
_OTHER_WAY = "take the original safetensors model instead, by its Hub id or as a directory"


def gguf_model_directory(file: Path) -> Path:
    """A Hugging Face directory in the user's cache: float32 weights, configuration, tokenizer.

    Raises ModelError for an architecture or a file that cannot be read, OutputError when there is
    no room.
    """
    gguf = read_gguf(file)
    parts = gguf.whole_number("split.count") or 1
    if parts > 1:
        raise ModelError(
            f"{file} is one part of a model that was split into {parts} files",
            hint="join them first: llama-gguf-split --merge FIRST_PART.gguf WHOLE.gguf",
        )
    entry = cache_root() / "models" / f"gguf-{file_sha256(file)[:16]}" / f"v{_FORMAT_VERSION}"
    return build_once(entry, lambda stage: _convert(gguf, stage))


def _convert(gguf: GgufFile, stage: Path) -> None:
    needed = 4 * sum(prod(tensor.shape) for tensor in gguf.tensors)
    free = shutil.disk_usage(stage).free
    if needed > free:
        raise OutputError(
            f"{gguf.path} needs {needed / GIB:.1f} GiB in {cache_root()}, where {free / GIB:.1f} "
            "GiB are free",
            hint="choose another place: export LLAMAFARM_CACHE=/path/with/room",
        )
    with quiet_transformers():
        model, tokenizer = _load(gguf)
        model.save_pretrained(stage)
        tokenizer.save_pretrained(stage)
    _settle(stage)


def _load(gguf: GgufFile) -> tuple[Any, Any]:
    import torch
    import transformers

    place = {"gguf_file": gguf.path.name, "local_files_only": True}
    # Before 5.20 or so a GGUF file was always dequantised, and there was no such class.
    how = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)}
        if hasattr(transformers, "GgufConfig")
        else {}
    )
    with model_faults(_unusable(gguf), hint=_OTHER_WAY):
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.path.parent, **place)
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.path.parent, dtype=torch.float32, output_loading_info=True, **place, **how
        )
    if report["missing_keys"]:
        missing = count_of(len(report["missing_keys"]), "weight")
        raise ModelError(f"{_unusable(gguf)}: {missing} missing", hint=_OTHER_WAY)
    if gguf.metadata.get("tokenizer.ggml.pre") in _DIGIT_SPLITTING:
        from llamafarm.models.smollm2 import digit_splitting_pre_tokenizer

        tokenizer.backend_tokenizer.pre_tokenizer = digit_splitting_pre_tokenizer()
    return model, tokenizer


def _unusable(gguf: GgufFile) -> str:
    return f"{gguf.path} ({gguf.architecture or 'unknown'} architecture) is no usable base model"


def _settle(stage: Path) -> None:
    """transformers writes without fsync and for the owner only: make it durable, and readable."""
    mode = stage.stat().st_mode & 0o666
    for file in stage.iterdir():
        file.chmod(mode)
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
