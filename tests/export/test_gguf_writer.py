"""GGUF files as ggml's own package and our reader find them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamafarm.errors import ModelError
from llamafarm.export import weights as weights_module
from llamafarm.export.contents import Floats, Metadatum, TensorPlan
from llamafarm.export.ggml_types import decode, type_name_of
from llamafarm.export.gguf_source import GgufWeights
from llamafarm.export.gguf_writer import TypedTensor, file_nbytes, write_gguf
from llamafarm.models.gguf_file import read_gguf

METADATA = (
    Metadatum("general.name", "naïve 漢字", "string"),
    Metadatum("t.flag", True, "bool"),
    Metadatum("t.small", 200, "uint8"),
    Metadatum("t.number", 2**31, "uint32"),
    Metadatum("t.negative", -5, "int32"),
    Metadatum("t.large", 2**40, "uint64"),
    Metadatum("t.share", 0.5, "float32"),
    Metadatum("t.exact", 0.1, "float64"),
    Metadatum("t.words", ("a", "", "Ġb"), "string[]"),
    Metadatum("t.numbers", (1, -1), "int32[]"),
    Metadatum("t.shares", (0.25, 4.0), "float32[]"),
)
ROWS = np.random.default_rng(0).normal(size=(90, 64)).astype(np.float32)


class Weights:
    """Tensors in memory. asked: the ranges of rows that were read, in order."""

    def __init__(self, tensors: Mapping[str, Floats]) -> None:
        self._tensors = tensors
        self.asked: list[tuple[int, int]] = []

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    @property
    def dtypes(self) -> Mapping[str, str]:
        return dict.fromkeys(self._tensors, "F32")

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        self.asked.append((start, stop))
        return self._tensors[name][start:stop]


def typed(kind: str = "F32", name: str = "t", shape: Any = (90, 64), **plan: Any) -> TypedTensor:
    return TypedTensor(TensorPlan(name, shape, **{"source": "rows", **plan}), kind)


def written(
    path: Path, *tensors: TypedTensor, threads: int = 2, weights: Any = None, **more: Any
) -> Path:
    source = weights or Weights({"rows": ROWS})
    write_gguf(path, "llama", METADATA, tensors, source, threads=threads, **more)
    return path


def rows_of(path: Path, name: str = "t") -> Floats:
    file = read_gguf(path)
    tensor = next(tensor for tensor in file.tensors if tensor.name == name)
    return GgufWeights(file).read_rows(name, 0, tensor.shape[0])


def test_every_kind_of_value_comes_back(tmp_path: Path) -> None:
    file = read_gguf(written(tmp_path / "m.gguf", typed()))
    assert file.architecture == "llama"
    for datum in METADATA:
        expected = list(datum.value) if isinstance(datum.value, tuple) else datum.value
        assert file.metadata[datum.key] == expected
        assert file.types[datum.key] == datum.value_type


def test_the_package_of_ggml_reads_the_same(tmp_path: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(written(tmp_path / "m.gguf", typed("Q8_0"), typed("F16", "u")))
    assert [tensor.name for tensor in reader.tensors] == ["t", "u"]
    assert [tensor.tensor_type.name for tensor in reader.tensors] == ["Q8_0", "F16"]
    assert reader.fields["t.words"].contents() == ["a", "", "Ġb"]
    assert np.array_equal(reader.tensors[1].data, ROWS.astype(np.float16))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_rows_are_encoded_and_tensors_lie_aligned(kind: str, tmp_path: Path) -> None:
    short = typed(kind, "short", (3, 64))
    file = read_gguf(written(tmp_path / "m.gguf", short, typed(kind)))
    assert [type_name_of(tensor.ggml_type) for tensor in file.tensors] == [kind, kind]
    assert [tensor.offset % 32 for tensor in file.tensors] == [0, 0]
    found = rows_of(file.path)
    steps = {"Q4": 0.3, "Q5": 0.15, "Q8": 0.02, "BF": 0.02, "F1": 2e-3, "F3": 0.0}
    assert np.abs(found - ROWS).max() <= steps[kind[:2]]
    assert np.array_equal(rows_of(file.path, "short"), found[:3])


def test_a_file_is_the_same_however_many_parts_and_threads_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = [typed("Q8_0"), typed("F16", "u", (7, 64)), typed("F32", "v", (64,), source="line")]
    source = {"rows": ROWS, "line": ROWS[0]}
    whole = written(tmp_path / "a.gguf", *tensors, threads=1, weights=Weights(source)).read_bytes()
    monkeypatch.setattr(weights_module, "_VALUES_AT_ONCE", 128)
    weights = Weights(source)
    parts = written(tmp_path / "b.gguf", *tensors, threads=7, weights=weights).read_bytes()
    assert len(weights.asked) > 40
    assert parts == whole


def test_rows_that_belong_together_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "_VALUES_AT_ONCE", 64 * 8)
    weights = Weights({"rows": ROWS})
    together = typed(rows_together=6, transform=lambda rows: rows[::-1])
    found = rows_of(written(tmp_path / "m.gguf", together, weights=weights))
    assert {stop - start for start, stop in weights.asked} == {6}
    assert np.array_equal(found.reshape(15, 6, 64), ROWS.reshape(15, 6, 64)[:, ::-1])


def test_values_that_are_computed_need_no_source(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 5, dtype=np.float32)
    weights = Weights({})
    plan = typed(name="rope_freqs.weight", shape=(5,), source="", values=values)
    path = written(tmp_path / "m.gguf", plan, weights=weights)
    assert np.array_equal(rows_of(path, "rope_freqs.weight"), values)


def test_only_the_first_rows_of_a_padded_vocabulary_are_taken(tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf", typed(shape=(80, 64)))
    assert np.array_equal(rows_of(path), ROWS[:80])


def test_a_tensor_can_be_copied_as_it_is_stored(tmp_path: Path) -> None:
    first = read_gguf(written(tmp_path / "a.gguf", typed("Q4_0")))
    copied = TypedTensor(TensorPlan("t", (90, 64), source="t"), "Q4_0", copied=True)
    written(tmp_path / "b.gguf", copied, weights=GgufWeights(first))
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


def padded(tensor: TypedTensor) -> int:
    return -(-tensor.nbytes // 32) * 32


def test_progress_counts_up_to_what_the_tensors_take_in_the_file(tmp_path: Path) -> None:
    seen: list[int] = []
    tensors = [typed("Q8_0"), typed("F16", "u")]
    written(tmp_path / "m.gguf", *tensors, on_bytes=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == sum(padded(tensor) for tensor in tensors)


def test_the_size_that_is_announced_is_enough(tmp_path: Path) -> None:
    source = Weights({"rows": ROWS[:, :32].copy()})
    tensors = [typed("Q8_0", shape=(90, 32)), typed("Q4_0", "u", (3, 32))]
    size = written(tmp_path / "m.gguf", *tensors, weights=source).stat().st_size
    assert size <= file_nbytes(tensors)
    header = size - sum(padded(tensor) for tensor in tensors)
    assert file_nbytes(tensors, header_bytes=header) == size


def test_a_fault_in_a_part_is_raised_and_names_the_tensor(tmp_path: Path) -> None:
    bad = ROWS.copy()
    bad[50, 3] = np.nan
    with pytest.raises(ModelError, match="tensor t holds values that are not finite"):
        written(tmp_path / "m.gguf", typed(), weights=Weights({"rows": bad}))


def test_decoding_undoes_encoding(tmp_path: Path) -> None:
    file = read_gguf(written(tmp_path / "m.gguf", typed("Q5_1")))
    encoded = GgufWeights(file).read_encoded("t", 10, 20)
    assert np.array_equal(decode(encoded, "Q5_1", (10, 64)), rows_of(file.path)[10:20])
