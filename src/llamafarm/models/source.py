"""Which weights a run really used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model name brought down to a local Hugging Face directory.

    requested: as the user wrote it; name: what the adapter names as its base; fingerprint: SHA-256
    over the
    weight files' content (cached beside them); notice: one line when other weights stand in for the
    requested ones.
    """

    requested: str
    name: str
    kind: Literal["packaged", "hub", "local", "gguf"]
    directory: Path
    fingerprint: str
    notice: str = ""
