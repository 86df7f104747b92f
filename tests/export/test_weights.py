"""Safetensors files read in parts, and files that lie about themselves."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llamafarm.errors import ModelError
from llamafarm.export.weights import StoredWeights, read_header, row_ranges

KINDS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def matrix(dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.randn(7, 3, 2) * 100).to(dtype)


def file_of(header: Mapping[str, Any] | bytes, data: bytes = b"", *, length: int = -1) -> bytes:
    """A safetensors file with whatever header. length: what the file says of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length < 0 else length) + text + data


def entry(shape: Any, offsets: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_that_torch_reads(kind: str, tmp_path: Path) -> None:
    tensor = matrix(KINDS[kind])
    save_file({"first": torch.ones(5), "a.weight": tensor}, tmp_path / "model.safetensors")
    weights = StoredWeights.of_model(tmp_path)
    assert weights.shapes == {"first": (5,), "a.weight": (7, 3, 2)}
    assert weights.dtypes["a.weight"] == kind
    rows = weights.read_rows("a.weight", 2, 6)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, tensor[2:6].float().numpy())


def test_no_rows_are_an_empty_array(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4, 3)}, tmp_path / "model.safetensors")
    assert StoredWeights.of_model(tmp_path).read_rows("a", 2, 2).shape == (0, 3)


def test_shards_are_read_as_one_model(tmp_path: Path) -> None:
    b = matrix(KINDS["F32"])
    parts = {"model-1.safetensors": {"a": torch.ones(2)}, "model-2.safetensors": {"b": b}}
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / name)
    weight_map = {tensor: name for name, tensors in parts.items() for tensor in tensors}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    weights = StoredWeights.of_model(tmp_path)
    assert set(weights.shapes) == {"a", "b"}
    assert np.array_equal(weights.read_rows("b", 6, 7), b[6:].numpy())


def test_a_tensor_in_two_files_is_refused_with_both(tmp_path: Path) -> None:
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for file in files:
        save_file({"twice": torch.ones(2)}, file)
    with pytest.raises(ModelError) as caught:
        StoredWeights.of_files(files)
    assert "twice" in caught.value.summary
    assert all(str(file) in caught.value.summary for file in files)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no safetensors weights"):
        StoredWeights.of_model(tmp_path)


def test_a_type_that_is_no_weight_s_is_refused_by_name_when_it_is_read(tmp_path: Path) -> None:
    save_file({"ids": torch.arange(4)}, tmp_path / "model.safetensors")
    weights = StoredWeights.of_model(tmp_path)
    with pytest.raises(ModelError, match=r"ids in .* is of type I64"):
        weights.read_rows("ids", 0, 4)


FAULTS = {
    "empty": b"",
    "half a length": b"\1\2\3",
    "longer than the file": file_of(b"{}", length=2**62),
    "not json": file_of(b"nothing"),
    "not utf-8": file_of(b'{"\xff": 1}'),
    "nested without end": file_of(b'{"a":' + b"[" * 200_000),
    "a list": file_of(b"[1, 2]"),
    "an entry that is a number": file_of({"a": 5}),
    "no shape": file_of({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "a shape of texts": file_of({"a": entry(["x"], [0, 4])}, bytes(4)),
    "a negative shape": file_of({"a": entry([-1, -1], [0, 4])}, bytes(4)),
    "true as a shape": file_of({"a": entry([True], [0, 4])}, bytes(4)),
    "one offset": file_of({"a": entry([1], [0])}, bytes(4)),
    "offsets backwards": file_of({"a": entry([1], [4, 0])}, bytes(4)),
    "offsets beyond the end": file_of({"a": entry([2], [0, 8])}, bytes(4)),
    "a size that does not fit": file_of({"a": entry([3], [0, 8])}, bytes(8)),
    "a shape without end": file_of({"a": entry([2**40, 2**40], [0, 4])}, bytes(4)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_or_hostile_file_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(FAULTS[fault])
    with pytest.raises(ModelError) as caught:
        read_header(file)
    assert str(file) in caught.value.summary
    assert "download" in caught.value.hint


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3, 2), "b": torch.ones(4)}, file)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            read_header(file)


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3, 2)}, file)
    weights = StoredWeights.of_model(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match="ends before its last tensor"):
        weights.read_rows("a", 2, 3)


def test_parts_cover_every_row_once() -> None:
    for shape in [(5_000_000,), (3_000, 4_096), (7, 2_000_000), (1,), (0, 4), ()]:
        rows = [row for start, stop in row_ranges(shape) for row in range(start, stop)]
        assert rows == list(range(shape[0] if shape else 1))
