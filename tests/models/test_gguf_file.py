from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from llamafarm.errors import ModelError
from llamafarm.models.gguf_file import GgufFile, read_gguf
from tests.models.gguf_files import write_gguf


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "blk.0.attn_q.weight": random.normal(size=(300, 512)).astype(np.float32),
        "norm.weight": random.normal(size=(7,)).astype(np.float32),
        "half.weight": random.normal(size=(4, 5)).astype(np.float16),
    }


def _dequantised(file: GgufFile, name: str) -> np.ndarray:
    tensor = next(tensor for tensor in file.tensors if tensor.name == name)
    out = np.empty(tensor.shape, np.float32)
    file.dequantize_into(tensor, out)
    return out


def test_metadata_comes_back_as_it_was_written(
    tmp_path: Path, tensors: dict[str, np.ndarray]
) -> None:
    write_gguf(tmp_path / "m.gguf", tensors)
    file = read_gguf(tmp_path / "m.gguf")
    assert file.architecture == "llama"
    assert file.metadata["llama.context_length"] == 512
    assert file.metadata["tokenizer.ggml.tokens"] == ["a", "b", "Ġc"]
    assert file.metadata["tokenizer.ggml.token_type"] == [1, 1, 3]
    assert file.metadata["test.flag"] is True
    assert file.metadata["test.scores"] == [0.5, -1.0]


def test_plain_tensors_come_back_bitwise(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    write_gguf(tmp_path / "m.gguf", tensors)
    file = read_gguf(tmp_path / "m.gguf")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(_dequantised(file, name), tensor.astype(np.float32))


def test_quantised_tensors_equal_those_of_ggmls_own_reader(
    tmp_path: Path, tensors: dict[str, np.ndarray]
) -> None:
    write_gguf(tmp_path / "m.gguf", tensors, quantised=True)
    file = read_gguf(tmp_path / "m.gguf")
    reference = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    for name, tensor in reference.items():
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found = _dequantised(file, name)
        assert found.shape == tensors[name].shape
        np.testing.assert_array_equal(found, expected.reshape(found.shape))


@pytest.mark.parametrize("keep", [3, 20, 60, 200, -400_000])
def test_a_file_that_was_cut_short_is_named(
    tmp_path: Path, tensors: dict[str, np.ndarray], keep: int
) -> None:
    write_gguf(tmp_path / "m.gguf", tensors)
    content = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[:keep])
    with pytest.raises(ModelError, match=r"cut\.gguf is not a readable GGUF file"):
        read_gguf(tmp_path / "cut.gguf")


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04 a zip file, say")
    with pytest.raises(ModelError, match="does not start with GGUF"):
        read_gguf(tmp_path / "m.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match="not a readable GGUF"):
        read_gguf(tmp_path / "empty.gguf")
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read_gguf(tmp_path / "absent.gguf")
