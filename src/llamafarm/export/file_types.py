"""The kinds of GGUF file that can be written, and which block format each tensor gets in them.

Numbers: gguf's LlamaFileType. The choice for each tensor follows llama.cpp's quantizer
(llama_tensor_get_type in src/llama-quant.cpp, without an importance matrix), with one difference:
in Q4_0, Q4_1, Q5_0 and Q5_1 files the output is Q8_0, where llama.cpp takes Q6_K, which needs an
engine.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from llamafarm.errors import UserError
from llamafarm.export.ggml_types import block_of


@dataclass(frozen=True, slots=True)
class FileType:
    """One kind of GGUF file. number: its general.file_type; tensor_type: ggml's type of most
    tensors; needs_engine: whether an engine for K types must be installed (k_quants).
    """

    name: str
    number: int
    tensor_type: str
    needs_engine: bool = False


FILE_TYPES: Mapping[str, FileType] = {
    file_type.name: file_type
    for file_type in (
        FileType("F32", 0, "F32"),
        FileType("F16", 1, "F16"),
        FileType("BF16", 32, "BF16"),
        FileType("Q8_0", 7, "Q8_0"),
        FileType("Q4_0", 2, "Q4_0"),
        FileType("Q4_1", 3, "Q4_1"),
        FileType("Q5_0", 8, "Q5_0"),
        FileType("Q5_1", 9, "Q5_1"),
        FileType("Q4_K_M", 15, "Q4_K", needs_engine=True),
        FileType("Q5_K_M", 17, "Q5_K", needs_engine=True),
        FileType("Q6_K", 18, "Q6_K", needs_engine=True),
    )
}
_UNQUANTISED = ("F32", "F16", "BF16")
_MIXTURES = ("Q4_K_M", "Q5_K_M")
# llama.cpp's choice where the blocks of 256 do not divide a row.
_FALL_BACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_ALWAYS_F32 = re.compile(r"_norm\.weight$|^rope_f")
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_VALUES = ("attn_v", "attn_qkv")


def parse_file_type(text: str) -> FileType:
    """The file type that a user named, in any case, with `-`, `_` or neither.

    Raises UserError with the nearest name and all of them.
    """
    plain = re.sub(r"[-_\s]", "", text).upper()
    for name, file_type in FILE_TYPES.items():
        if name.replace("_", "") == plain:
            return file_type
    near = difflib.get_close_matches(text.strip().upper().replace("-", "_"), FILE_TYPES, n=1)
    raise UserError(
        f"there is no file type {text!r}" + (f"; did you mean {near[0]}?" if near else ""),
        hint=f"choose one of {', '.join(FILE_TYPES)}",
    )


def tensor_type(
    file_type: FileType, name: str, shape: tuple[int, ...], *, num_layers: int, tied: bool
) -> str:
    """ggml's type, e.g. `Q6_K`, of one tensor in a file of this type.

    name: in the GGUF; shape: in torch's order; tied: the model has no output.weight, the token
    embedding is its output too.
    """
    if len(shape) < 2 or _ALWAYS_F32.search(name):
        return "F32"
    if file_type.tensor_type in _UNQUANTISED:
        return file_type.tensor_type
    if name == ("token_embd.weight" if tied else "output.weight"):
        return _fitting(_output_type(file_type), shape[-1])
    if file_type.name in _MIXTURES:
        return _fitting(_mixture_type(file_type, name, shape, num_layers), shape[-1])
    return _fitting(file_type.tensor_type, shape[-1])


def _output_type(file_type: FileType) -> str:
    return "Q6_K" if file_type.needs_engine else "Q8_0"


def _mixture_type(file_type: FileType, name: str, shape: tuple[int, ...], num_layers: int) -> str:
    """Q6_K for the attention's values and the second feed-forward matrix of half of the layers."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return file_type.tensor_type
    layer, part = int(match[1]), match[2]
    if part in (*_VALUES, "ffn_down") and _gets_more_bits(layer, num_layers):
        return "Q6_K"
    # llama.cpp's rule for models of 70 B, which it tells by their layers and grouped values.
    if part in _VALUES and num_layers == 80 and shape[0] < shape[1]:
        return "Q5_K"
    return file_type.tensor_type


def _gets_more_bits(layer: int, num_layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between (use_more_bits)."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _fitting(wanted: str, row_length: int) -> str:
    for candidate in (wanted, _FALL_BACKS.get(wanted, wanted)):
        if row_length % block_of(candidate)[0] == 0:
            return candidate
    return "F16"
