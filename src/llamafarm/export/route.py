"""How a model would become a GGUF file: known before it is trained, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llamafarm.errors import ModelError, Problem
from llamafarm.export.architectures import is_supported, supported_architectures
from llamafarm.export.llama_cpp_converter import Converter, find_converter, listed_architectures
from llamafarm.export.vocabulary import check_vocabulary_supported
from llamafarm.models.config import read_json

_INSTALL = (
    "llama.cpp's own converter may know it: setup without --verify-only installs it (a "
    "download of 77 MB, nothing is compiled), or export LLAMA_CPP_PATH=/path/to/llama.cpp"
)
_NEWER = (
    "a newer llama.cpp may know it: git clone https://github.com/ggml-org/llama.cpp, then export "
    "LLAMA_CPP_PATH=/path/to/llama.cpp"
)


@dataclass(frozen=True, slots=True)
class ExportRoute:
    """kind: written by llamafarm itself, by llama.cpp's converter, or not at all. detail: why, as
    one sentence; hint: what to type, where the kind is `none`.
    """

    kind: Literal["own", "llama.cpp", "none"]
    architecture: str
    detail: str
    hint: str = ""


def export_route(directory: Path) -> ExportRoute:
    """The route of a Hugging Face model directory.

    Raises ModelError when its config.json cannot be read, UserError when LLAMA_CPP_PATH is needed
    and names no converter.
    """
    config = read_json(directory / "config.json")
    architecture = _architecture(config)
    obstacle = _obstacle(config, architecture, directory)
    if obstacle is None:
        return ExportRoute("own", architecture, f"llamafarm writes {architecture} itself")
    converter = find_converter()
    if converter is None:
        return ExportRoute("none", architecture, obstacle.message, _hint(obstacle, _INSTALL))
    return _other_route(architecture, obstacle, converter)


def _other_route(architecture: str, obstacle: Problem, converter: Converter) -> ExportRoute:
    name = f"llama.cpp's converter ({converter.origin})"
    if architecture in listed_architectures(converter):
        # Its list of tokenizers holds hashes of what they make of a text: only a run can tell.
        detail = f"{obstacle.message}; {name} lists it, and checks the tokenizer when it converts"
        return ExportRoute("llama.cpp", architecture, detail)
    detail = f"{obstacle.message}; {name} does not list it either"
    return ExportRoute("none", architecture, detail, _hint(obstacle, _NEWER))


def _hint(obstacle: Problem, other_way: str) -> str:
    return "; ".join(hint for hint in (obstacle.hint, other_way) if hint)


def _architecture(config: Mapping[str, Any]) -> str:
    """The name that llama.cpp's converter goes by; empty where the configuration has none."""
    text_config = config.get("text_config")
    inner = text_config.get("architectures") if isinstance(text_config, dict) else None
    names = inner or config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _obstacle(config: Mapping[str, Any], architecture: str, directory: Path) -> Problem | None:
    """Why llamafarm cannot write the model itself; None where it can."""
    if not is_supported(config):
        return Problem(
            f"llamafarm does not write {architecture or 'a model that names no architecture'} "
            f"itself, only {', '.join(supported_architectures())}"
        )
    try:
        check_vocabulary_supported(directory)
    except ModelError as fault:
        return Problem(fault.summary, hint=fault.hint)
    return None
