"""What `convert` is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Format = Literal["ollama", "gguf", "safetensors"]
ParameterValue = bool | float | int | str | tuple[str, ...]
DEFAULT_QUANTIZATION = "q8_0"


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """None: not said. parameters: PARAMETER lines of the Modelfile, by Ollama's names; verify:
    whether the certificate is made.
    """

    source: str
    target: Path
    format: Format
    quantization: str | None = None
    name: str | None = None
    system_prompt: str | None = None
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    overwrite: bool = False
    verify: bool = True
