"""Tensors of safetensors files, some rows at a time, as float32 numpy arrays.

Read, not mapped: a mapped page counts as memory of the process, and a merge must not need the
memory of the model. No torch: numpy knows everything but bfloat16, which is the upper half of
float32. Format: github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from llamafarm.errors import ModelError
from llamafarm.export.contents import Floats
from llamafarm.models.fingerprint import weight_files

# The format's own limit.
_LONGEST_HEADER = 100_000_000
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_VALUES_AT_ONCE = 1 << 17


class WeightSource(Protocol):
    """Tensors by name. dtypes: as safetensors names them, what the values were stored as."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor."""
        ...

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Stored type of every tensor."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows start to stop, along the first dimension. May be called from several threads."""
        ...


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies. offset: in its file, in bytes."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class EncodedSource(WeightSource, Protocol):
    """Tensors that are stored in one of ggml's types, and can be had as they are stored."""

    def read_encoded(self, name: str, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """The bytes of rows start to stop."""
        ...


class StoredWeights:
    """The tensors of some safetensors files."""

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        self._tensors = dict(tensors)
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._dtypes = {name: tensor.dtype for name, tensor in tensors.items()}

    @classmethod
    def of_model(cls, directory: Path) -> StoredWeights:
        """The weights of a model directory. Raises ModelError when they are missing or broken."""
        files = weight_files(directory)
        if not files:
            raise ModelError(
                f"{directory} has no safetensors weights", hint="name a directory that holds them"
            )
        return cls.of_files(files)

    @classmethod
    def of_files(cls, files: Sequence[Path]) -> StoredWeights:
        """The tensors of all files. Raises ModelError for a broken file, or a name given twice."""
        found: dict[str, StoredTensor] = {}
        for file in files:
            for name, tensor in read_header(file).items():
                if name in found:
                    raise ModelError(
                        f"{name} stands in two files: {found[name].file} and {file}",
                        hint="download the model again",
                    )
                found[name] = tensor
        return cls(found)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return self._shapes

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Stored type of every tensor."""
        return self._dtypes

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows start to stop as float32. Raises ModelError when the file ends before them."""
        tensor = self._tensors[name]
        row = prod(tensor.shape[1:])
        size = _ITEM_BYTES.get(tensor.dtype)
        if size is None:
            raise ModelError(
                f"{name} in {tensor.file} is of type {tensor.dtype}, which is not a weight's",
                hint="F32, F16, BF16 and F64 are read",
            )
        data = _read(tensor.file, tensor.offset + start * row * size, (stop - start) * row * size)
        return _as_float32(data, tensor.dtype).reshape(stop - start, *tensor.shape[1:])


def row_ranges(shape: tuple[int, ...], together: int = 1) -> Iterator[tuple[int, int]]:
    """Starts and stops of parts that fit into the processor's cache, each of a multiple of
    `together` rows but the last. A tensor without dimensions is one row.
    """
    rows = shape[0] if shape else 1
    row = max(1, prod(shape[1:]))
    step = max(1, _VALUES_AT_ONCE // (row * together)) * together
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file, every size and place checked against the file's own size."""
    try:
        size = file.stat().st_size
        (length,) = struct.unpack("<Q", _read(file, 0, 8))
        if length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"its header would have {length:,} bytes")
        header = json.loads(_read(file, 8, length).decode("utf-8"))
        header.pop("__metadata__", None)
        return {name: _stored(file, 8 + length, size, entry) for name, entry in header.items()}
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        struct.error,
    ) as fault:
        raise ModelError(
            f"{file} is not a readable safetensors file ({fault})", hint="download it again"
        ) from fault
    except OSError as fault:
        raise ModelError(f"{file} cannot be read: {fault.strerror or fault}") from fault


def _stored(file: Path, base: int, size: int, entry: Mapping[str, object]) -> StoredTensor:
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], str(entry["dtype"])
    if not (_naturals(shape) and _naturals(offsets)):
        raise ValueError("a shape or an offset is no list of numbers")
    start, end = offsets
    item = _ITEM_BYTES.get(dtype)
    if not (0 <= start <= end <= size - base):
        raise ValueError("a tensor lies outside the file: it was cut short")
    if item is not None and end - start != prod(shape) * item:
        raise ValueError("the size of a tensor does not fit its shape")
    return StoredTensor(file, dtype, tuple(shape), base + start)


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _read(file: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        data = os.pread(descriptor, length, offset)
        while len(data) < length:
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                raise ModelError(
                    f"{file} ends before its last tensor", hint="download the file again"
                )
            data += more
    finally:
        os.close(descriptor)
    return data


def _as_float32(data: bytes, dtype: str) -> Floats:
    if dtype == "BF16":
        halves = np.frombuffer(data, "<u2")
        return (halves.astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, _NUMPY_TYPES[dtype]).astype(np.float32, copy=False)
