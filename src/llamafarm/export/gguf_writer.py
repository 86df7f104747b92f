"""A GGUF file, written as a stream: the header first, then every tensor in parts.

`gguf` packs the header, because it knows the format. The tensors are read, changed, encoded and
written in parts of a few megabytes, so memory does not grow with the model; numpy lets several
threads work on parts at once, which are written in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from llamafarm.export.contents import Metadatum, TensorPlan
from llamafarm.export.encodings import encode
from llamafarm.export.ggml_types import encoded_nbytes
from llamafarm.export.weights import EncodedSource, WeightSource, row_ranges
from llamafarm.files import append_stream

_ALIGNMENT = 32
_PARTS_AHEAD = 3

Encoded = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TypedTensor:
    """A tensor of the file and its type, as ggml names it. copied: it has that type already, and
    its bytes are taken as they are, from an EncodedSource.
    """

    plan: TensorPlan
    type_name: str
    copied: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the encoded tensor, without padding."""
        return encoded_nbytes(self.plan.shape, self.type_name)


def file_nbytes(tensors: Sequence[TypedTensor], header_bytes: int = 1 << 24) -> int:
    """About how large a file with these tensors becomes; a vocabulary takes most of the header."""
    return header_bytes + sum(_padded(tensor.nbytes) for tensor in tensors)


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Sequence[Metadatum],
    tensors: Sequence[TypedTensor],
    weights: WeightSource,
    *,
    threads: int,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Write a new file and fsync it. on_bytes: told how many bytes of tensors are written so far.

    Raises ModelError when a tensor cannot be read or encoded; a file cut short is then left behind,
    for the caller's staged directory to go with.
    """
    _write_header(path, architecture, metadata, tensors)
    done = 0
    with append_stream(path) as stream, ThreadPoolExecutor(threads) as pool:
        stream.write(bytes(-stream.tell() % _ALIGNMENT))
        for part in _in_order(pool, _parts(tensors, weights)):
            stream.write(part.data)
            done += part.size
            if on_bytes is not None:
                on_bytes(done)


def _write_header(
    path: Path, architecture: str, metadata: Sequence[Metadatum], tensors: Sequence[TypedTensor]
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for datum in metadata:
        kind, item = _value_types(datum.value_type)
        value = list(datum.value) if isinstance(datum.value, tuple) else datum.value
        writer.add_key_value(datum.key, value, kind, sub_type=item)
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.plan.name,
            tensor.plan.shape,
            np.dtype(np.float32),
            tensor.nbytes,
            raw_dtype=gguf.GGMLQuantizationType[tensor.type_name],
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _value_types(value_type: str) -> tuple[Any, Any]:
    from gguf import GGUFValueType

    if value_type.endswith("[]"):
        return GGUFValueType.ARRAY, GGUFValueType[value_type.removesuffix("[]").upper()]
    return GGUFValueType[value_type.upper()], None


def _parts(
    tensors: Sequence[TypedTensor], weights: WeightSource
) -> Iterator[Callable[[], Encoded]]:
    """What is to be computed for each part of the file, in order."""
    for tensor in tensors:
        plan = tensor.plan
        last = plan.shape[0]
        for start, stop in row_ranges(plan.shape, plan.rows_together):
            padding = -tensor.nbytes % _ALIGNMENT if stop == last else 0
            yield _Part(tensor, weights, start, stop, padding)


@dataclass(frozen=True, slots=True)
class _Part:
    tensor: TypedTensor
    weights: WeightSource
    start: int
    stop: int
    padding: int

    def __call__(self) -> Encoded:
        plan = self.tensor.plan
        if self.tensor.copied:
            stored = cast(EncodedSource, self.weights)
            encoded = stored.read_encoded(plan.source, self.start, self.stop)
            return np.pad(encoded, (0, self.padding)) if self.padding else encoded
        if plan.values is not None:
            rows = plan.values[self.start : self.stop]
        else:
            rows = self.weights.read_rows(plan.source, self.start, self.stop)
        if plan.transform is not None:
            rows = plan.transform(rows)
        table = rows.reshape(1, -1) if rows.ndim == 1 else rows.reshape(len(rows), -1)
        encoded = encode(table, self.tensor.type_name, tensor=plan.name)
        return np.pad(encoded, (0, self.padding)) if self.padding else encoded


def _in_order(
    pool: ThreadPoolExecutor, parts: Iterator[Callable[[], Encoded]]
) -> Iterator[Encoded]:
    """Results in order, a few parts being computed ahead of the one that is written."""
    ahead: deque[Future[Encoded]] = deque()
    for part in parts:
        ahead.append(pool.submit(part))
        if len(ahead) > _PARTS_AHEAD:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _padded(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
