"""A GGUF file as values: metadata and memory-mapped tensors.

The `gguf` package has a reader too, but it keeps every token of the vocabulary as several arrays
and needs ten seconds for a small model; this one needs a tenth of a second. `gguf` stays the source
of the block formats. Format: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_VALUES_AT_ONCE = 1 << 17
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies. shape: in torch's order; ggml_type: number of the block format;
    offset: in the file.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """Header of a GGUF file; tensors are read on request."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, e.g. `llama`."""
        return str(self.metadata.get("general.architecture", ""))

    def dequantize_into(self, tensor: GgufTensor, out: Any) -> None:
        """Write the tensor into `out`, a contiguous float32 numpy array of tensor.shape.

        A part at a time, so that the temporary arrays stay small enough to be reused.
        """
        import numpy as np
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType(tensor.ggml_type)
        block_size, block_bytes = GGML_QUANT_SIZES[kind]
        values = out.reshape(-1)
        shape = (values.size // block_size * block_bytes,)
        stored = np.memmap(self.path, np.uint8, "r", offset=tensor.offset, shape=shape)
        step = max(1, _VALUES_AT_ONCE // block_size)
        for start in range(0, values.size // block_size, step):
            blocks = stored[start * block_bytes : (start + step) * block_bytes]
            # As one long row: the package works on 16 rows at a time, however short they are.
            some = dequantize(blocks[None], kind)[0]
            values[start * block_size :][: some.size] = some


def read_gguf(path: Path) -> GgufFile:
    """Read the header. Raises ModelError when it is not a whole GGUF file of version 2 or 3."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except (struct.error, UnicodeDecodeError, KeyError, ValueError) as fault:
        raise ModelError(
            f"{path} is not a readable GGUF file ({fault})",
            hint=(
                "download the file again; its size or checksum on the download page tells whether "
                "it is whole"
            ),
        ) from fault
    except OSError as fault:
        raise ModelError(f"{path} cannot be read: {fault.strerror or fault}") from fault


class _Cursor:
    """Reads little-endian values one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def number(self, code: str) -> Any:
        layout = struct.Struct("<" + code)
        (value,) = layout.unpack_from(self.data, self.position)
        self.position += layout.size
        return value

    def string(self) -> str:
        length = self.number("Q")
        start, self.position = self.position, self.position + length
        if self.position > len(self.data):
            raise ValueError("it ends in the middle of a string")
        return self.data[start : self.position].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        return self.number(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind in (_STRING, _ARRAY):
            return [self.value(kind) for _ in range(count)]
        layout = struct.Struct(f"<{count}{_SCALARS[kind]}")
        values = list(layout.unpack_from(self.data, self.position))
        self.position += layout.size
        return values


def _parse(path: Path, data: mmap.mmap) -> GgufFile:
    if data[:4] != _MAGIC:
        raise ValueError("it does not start with GGUF")
    cursor = _Cursor(data)
    cursor.position = len(_MAGIC)
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise ValueError(f"version {version}; versions 2 and 3 are read")
    tensor_count, metadata_count = cursor.number("Q"), cursor.number("Q")
    metadata = {}
    for _ in range(metadata_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.number("I"))
    entries = [_tensor_entry(cursor) for _ in range(tensor_count)]
    alignment = int(metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
    start = -(-cursor.position // alignment) * alignment
    tensors = tuple(GgufTensor(name, shape, kind, start + at) for name, shape, kind, at in entries)
    if tensors and max(tensor.offset for tensor in tensors) >= len(data):
        raise ValueError("it ends before its last tensor")
    return GgufFile(path, metadata, tensors)


def _tensor_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    dimensions = [cursor.number("Q") for _ in range(cursor.number("I"))]
    # GGUF writes the fastest-moving dimension first, torch last.
    return name, tuple(reversed(dimensions)), cursor.number("I"), cursor.number("Q")
