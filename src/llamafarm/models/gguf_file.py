"""A GGUF file as values: metadata and memory-mapped tensors.

The `gguf` package has a reader too, but it keeps every token of the vocabulary as several arrays
and needs ten seconds for a small model; this one needs a tenth of a second. `gguf` stays the source
of the block formats. Format: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from llamafarm.errors import ModelError
from llamafarm.models.gguf_header import HeaderReader, shown

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_LARGEST_ALIGNMENT = 1 << 16
_MOST_DIMENSIONS = 4
_LONGEST_KEY, _LONGEST_TENSOR_NAME = 65_535, 64
# In bytes: length of the key, its type, a value of one byte.
_SMALLEST_KEY = 8 + 4 + 1
# In bytes: length of the name, number of dimensions, type, offset.
_SMALLEST_TENSOR = 8 + 4 + 4 + 8
_VALUES_AT_ONCE = 1 << 17


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies. shape: in torch's order; ggml_type: number of the block format;
    offset, num_bytes: in the file, inside it.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """Header of a GGUF file; tensors are read on request. types: of the metadata's values, as the
    format names them (`uint32`, `string[]`).
    """

    path: Path
    metadata: Mapping[str, Any]
    types: Mapping[str, str]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, e.g. `llama`."""
        return str(self.metadata.get("general.architecture", ""))

    def whole_number(self, key: str) -> int | None:
        """The value of a key; None where it is absent. Raises ModelError for any other value."""
        value = self.metadata.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise ModelError(f"{self.path}: key {shown(key)} is not a whole number")

    def dequantize_into(self, tensor: GgufTensor, out: Any) -> None:
        """Write the tensor into `out`, a contiguous float32 numpy array of tensor.shape.

        A part at a time, so that the temporary arrays stay small enough to be reused. Raises
        ModelError for a block format that `gguf` cannot undo.
        """
        import numpy as np
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType(tensor.ggml_type)
        block_size, block_bytes = GGML_QUANT_SIZES[kind]
        values = out.reshape(-1)
        stored = np.memmap(
            self.path, np.uint8, "r", offset=tensor.offset, shape=(tensor.num_bytes,)
        )
        step = max(1, _VALUES_AT_ONCE // block_size)
        for start in range(0, values.size // block_size, step):
            blocks = stored[start * block_bytes : (start + step) * block_bytes]
            try:
                # As one long row: the package works on 16 rows at a time, however short they are.
                some = dequantize(blocks[None], kind)[0]
            except NotImplementedError as fault:
                raise ModelError(
                    f"{self.path}: tensor {shown(tensor.name)} is stored as {kind.name}, which "
                    "cannot be turned back into plain numbers",
                    hint="take a file in another format, such as Q8_0 or F16",
                ) from fault
            values[start * block_size :][: some.size] = some


def read_gguf(path: Path) -> GgufFile:
    """Read the header. Raises ModelError when it is not a whole GGUF file of version 2 or 3.

    Nothing in the file is believed before it is compared with the file's size: a damaged or hostile
    header costs no memory, and its fault is named with the key or tensor that has it.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except ValueError as fault:
        raise ModelError(
            f"{path} is not a readable GGUF file ({fault})",
            hint=(
                "download the file again; its size or checksum on the download page tells whether "
                "it is whole"
            ),
        ) from fault
    except OSError as fault:
        raise ModelError(f"{path} cannot be read: {fault.strerror or fault}") from fault


def _parse(path: Path, data: mmap.mmap) -> GgufFile:
    if data[:4] != _MAGIC:
        raise ValueError("it does not start with GGUF")
    reader = HeaderReader(data)
    reader.position = len(_MAGIC)
    version = reader.number("I")
    if version not in _VERSIONS:
        raise ValueError(f"version {version}; versions 2 and 3 are read, as little-endian")
    reader.subject = "the number of tensors"
    tensor_count = reader.count(_SMALLEST_TENSOR)
    reader.subject = "the number of keys"
    typed = _read_metadata(reader, reader.count(_SMALLEST_KEY))
    metadata = {key: value for key, (_, value) in typed.items()}
    reader.subject = "the tensors"
    entries = [_read_tensor(reader, number) for number in range(tensor_count)]
    alignment = _alignment(metadata)
    start = -(-reader.position // alignment) * alignment
    tensors = tuple(
        GgufTensor(name, shape, kind, start + offset, _num_bytes(name, shape, kind))
        for name, shape, kind, offset in entries
    )
    _check_places(tensors, alignment, start, len(data))
    types = {key: kind for key, (kind, _) in typed.items()}
    return GgufFile(path, metadata, types, tensors)


def _read_metadata(reader: HeaderReader, count: int) -> dict[str, tuple[str, Any]]:
    """Type and value by key."""
    metadata: dict[str, tuple[str, Any]] = {}
    for number in range(count):
        reader.subject = f"the name of key {number + 1}"
        key = reader.text(_LONGEST_KEY)
        reader.subject = f"key {shown(key)}"
        if key in metadata:
            raise reader.fault("it is there twice")
        metadata[key] = reader.value()
    return metadata


def _alignment(metadata: Mapping[str, Any]) -> int:
    value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("key 'general.alignment': it is not a whole number")
    if not 0 < value <= _LARGEST_ALIGNMENT or value & (value - 1):
        raise ValueError(
            f"key 'general.alignment': {value} is no power of two up to {_LARGEST_ALIGNMENT:,}"
        )
    return value


def _read_tensor(reader: HeaderReader, number: int) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, block format, and offset from the first tensor's place."""
    reader.subject = f"the name of tensor {number + 1}"
    name = reader.text(_LONGEST_TENSOR_NAME)
    reader.subject = f"tensor {shown(name)}"
    count = reader.number("I")
    if count > _MOST_DIMENSIONS:
        raise reader.fault(f"{count:,} dimensions; at most {_MOST_DIMENSIONS} are read")
    dimensions = [reader.number("Q") for _ in range(count)]
    # GGUF writes the fastest-moving dimension first, torch last.
    return name, tuple(reversed(dimensions)), reader.number("I"), reader.number("Q")


def _num_bytes(name: str, shape: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor in the file, as an exact number however absurd the shape."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if 0 in shape:
        raise ValueError(f"tensor {shown(name)}: a dimension of 0")
    try:
        block_size, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise ValueError(f"tensor {shown(name)}: the unknown block format {kind}") from None
    row = shape[-1] if shape else 1
    if row % block_size:
        raise ValueError(
            f"tensor {shown(name)}: rows of {row:,} values, which blocks of {block_size} do not "
            "fill"
        )
    num_bytes: int = prod(shape) // block_size * block_bytes
    return num_bytes


def _check_places(
    tensors: Sequence[GgufTensor], alignment: int, start: int, file_bytes: int
) -> None:
    """Every tensor has a name and bytes of its own, aligned, inside the file."""
    names: set[str] = set()
    end, before = start, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        name = f"tensor {shown(tensor.name)}"
        if tensor.name in names:
            raise ValueError(f"{name}: it is there twice")
        names.add(tensor.name)
        if (tensor.offset - start) % alignment:
            raise ValueError(f"{name}: its offset is no multiple of {alignment}")
        if tensor.offset < end:
            raise ValueError(f"{name}: it overlaps tensor {shown(before)}")
        end, before = tensor.offset + tensor.num_bytes, tensor.name
        if end > file_bytes:
            raise ValueError(
                f"{name}: it ends at byte {end:,}, and the file at byte {file_bytes:,}"
            )
