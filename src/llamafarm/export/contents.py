"""What goes into a GGUF file, as values: metadata and, tensor by tensor, where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
ValueType = str
"""`bool`, `string`, `uint32`, `float32` …, as the GGUF format names them; `string[]` for arrays."""
MetadataValue = bool | str | int | float | Sequence[str] | Sequence[int] | Sequence[float]


@dataclass(frozen=True, slots=True)
class Metadatum:
    """One key of a GGUF header. value_type: as the GGUF specification names it; [] for arrays."""

    key: str
    value: MetadataValue
    value_type: ValueType


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor of a GGUF file, made from one tensor of a Hugging Face model, some rows at a time.

    name: in the GGUF; shape: in torch's order. source: name of the Hugging Face tensor, whose first
    `shape[0]` rows are read; empty where the values are computed instead (`values`, which are
    written in float32). transform: gets float32 rows [n, …] and gives as many rows of the same
    shape; n is a multiple of rows_together, except where fewer are left.
    """

    name: str
    shape: tuple[int, ...]
    source: str = ""
    transform: Callable[[Floats], Floats] | None = None
    rows_together: int = 1
    values: Floats | None = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as llama.cpp reads it. tokens, token_types (and scores): one for each id.

    model: `gpt2` for byte-level BPE, `llama` for SentencePiece-like BPE with byte fallback.
    pre: llama.cpp's name of the pre-tokenizer (`default` for SentencePiece). token_types: 1 normal,
    2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. merges: `left right`, in order of rank.
    Ids are None where the tokenizer has no such token.
    """

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: tuple[str, ...]
    token_types: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    pad_id: int | None = None
    add_space_prefix: bool | None = None
