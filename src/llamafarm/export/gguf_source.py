"""A GGUF file as a source: copied with another template's wrapping, or encoded anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamafarm.errors import ModelError
from llamafarm.export.chat_template import embedded_template
from llamafarm.export.contents import Floats, MetadataValue, Metadatum, TensorPlan
from llamafarm.export.file_types import FILE_TYPES, FileType, tensor_type
from llamafarm.export.ggml_types import Bytes, decode, type_name_of
from llamafarm.export.gguf_writer import TypedTensor
from llamafarm.models.gguf_file import GgufFile, GgufTensor, read_gguf
from llamafarm.models.gguf_header import shown

_TEMPLATE = "tokenizer.chat_template"
_FILE_TYPE = "general.file_type"
_NAME = "general.name"
# Facts about the old file that a new one does not share.
_DROPPED = (
    "general.alignment",
    "general.architecture",
    "split.no",
    "split.count",
    "split.tensors.count",
)


class GgufWeights:
    """The tensors of a GGUF file: a WeightSource whose rows can also be had as they are stored."""

    def __init__(self, file: GgufFile) -> None:
        self._path = file.path
        self._tensors = {tensor.name: tensor for tensor in file.tensors}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    @property
    def dtypes(self) -> Mapping[str, str]:
        """ggml's type of every tensor."""
        return {name: type_name_of(tensor.ggml_type) for name, tensor in self._tensors.items()}

    def read_encoded(self, name: str, start: int, stop: int) -> Bytes:
        """Rows start to stop as they are stored."""
        tensor = self._tensors[name]
        # Of a tensor of one dimension a row is one value, of which a block holds many.
        first, last = (tensor.num_bytes * row // tensor.shape[0] for row in (start, stop))
        return np.fromfile(self._path, np.uint8, last - first, offset=tensor.offset + first)

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows start to stop, decoded. Raises ModelError for a format that `gguf` cannot decode."""
        tensor = self._tensors[name]
        kind = type_name_of(tensor.ggml_type)
        try:
            shape = (stop - start, *tensor.shape[1:])
            return decode(self.read_encoded(name, start, stop), kind, shape)
        except NotImplementedError as fault:
            raise ModelError(
                f"{self._path}: {name} is stored as {kind}, which cannot be decoded",
                hint="leave out --quantization: the tensors are then copied as they are",
            ) from fault


@dataclass(frozen=True, slots=True)
class GgufSource:
    """A `.gguf` file that is to be deployed. wanted: its new type, None to keep every tensor's."""

    file: GgufFile
    weights: GgufWeights
    wanted: FileType | None

    @property
    def type_name(self) -> str:
        """The type for the file's name: the new one, or the one that the old file gives itself."""
        return self.wanted.name if self.wanted is not None else _own_type(self.file)

    @property
    def keeps_types(self) -> bool:
        """Whether every tensor is copied."""
        return self.wanted is None

    def tensors(self) -> tuple[TypedTensor, ...]:
        """What the new file holds."""
        names = {tensor.name for tensor in self.file.tensors}
        tied = "output.weight" not in names
        layers = self.file.whole_number(f"{self.file.architecture}.block_count") or 0
        return tuple(self._tensor(tensor, layers, tied) for tensor in self.file.tensors)

    def metadata(self, name: str) -> tuple[Metadatum, ...]:
        """The old keys, with a new name and type, and the template as every reader keeps it."""
        own = [Metadatum(_NAME, name, "string")]
        if self.wanted is not None:
            own.append(Metadatum(_FILE_TYPE, self.wanted.number, "uint32"))
        replaced = (*_DROPPED, *(datum.key for datum in own))
        kept = [
            Metadatum(key, self._value(key, value), self.file.types[key])
            for key, value in self.file.metadata.items()
            if key not in replaced and value != []
        ]
        return (*own, *kept)

    def _value(self, key: str, value: MetadataValue) -> MetadataValue:
        is_template = key == _TEMPLATE and isinstance(value, str)
        return embedded_template(str(value)) if is_template else value

    def _tensor(self, tensor: GgufTensor, layers: int, tied: bool) -> TypedTensor:
        plan = TensorPlan(tensor.name, tensor.shape, source=tensor.name)
        stored = type_name_of(tensor.ggml_type)
        if self.wanted is None:
            return TypedTensor(plan, stored, copied=True)
        kind = tensor_type(self.wanted, tensor.name, tensor.shape, num_layers=layers, tied=tied)
        return TypedTensor(plan, kind, copied=kind == stored)


def open_gguf(path: Path, wanted: FileType | None) -> GgufSource:
    """Raises ModelError for a damaged file, or one part of a model that was split."""
    file = read_gguf(path)
    if (file.whole_number("split.count") or 1) > 1:
        raise ModelError(
            f"{path} is one part of a model that was split",
            hint="join the parts first: llama-gguf-split --merge FIRST_PART.gguf WHOLE.gguf",
        )
    fault = _fault(file)
    if fault:
        raise ModelError(
            f"{path} is not a model that can be served: {fault}",
            hint="take a file that llama.cpp's own tools made",
        )
    return GgufSource(file, GgufWeights(file), wanted)


def _fault(file: GgufFile) -> str:
    """What the format allows and no engine serves; empty where there is nothing of it."""
    if not file.architecture:
        return "it names no architecture"
    scalar = next((tensor.name for tensor in file.tensors if not tensor.shape), None)
    if scalar is not None:
        return f"tensor {shown(scalar)} has no rows"
    nested = next((key for key, kind in file.types.items() if kind == "array[]"), None)
    return "" if nested is None else f"key {shown(nested)} is an array of arrays"


def _own_type(file: GgufFile) -> str:
    number = file.whole_number(_FILE_TYPE)
    known = {file_type.number: name for name, file_type in FILE_TYPES.items()}
    if number in known:
        return known[number]
    from gguf.constants import LlamaFileType

    try:
        return str(LlamaFileType(number).name).removeprefix("MOSTLY_")
    except ValueError:
        return "GGUF"
