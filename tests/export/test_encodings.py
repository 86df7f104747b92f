from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llamafarm.errors import ModelError
from llamafarm.export.encodings import decode, encode, encoded_nbytes

_BLOCK_TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
_TYPES = ("F32", "F16", "BF16", *_BLOCK_TYPES)
_EVERY_TYPE = pytest.mark.parametrize("type_name", _TYPES)
# The first magnitude that each type cannot hold.
_TOO_LARGE = {
    "F16": 65520.0,
    "BF16": float.fromhex("0x1.FFp127"),
    "Q8_0": 65520.0 * 127,
    "Q4_0": 65520.0 * 8,
    "Q4_1": 65520.0,
    "Q5_0": 65520.0 * 16,
    "Q5_1": 65520.0,
}


def _encoded(rows: np.ndarray, type_name: str) -> np.ndarray:
    """A RuntimeWarning of numpy's is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return encode(rows, type_name, tensor="blk.0.ffn_up.weight")


def _ggufs(rows: np.ndarray, type_name: str) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[type_name]
    return gguf.quants.quantize(rows, kind).reshape(-1).view(np.uint8)


def _decoded(rows: np.ndarray, type_name: str) -> np.ndarray:
    return decode(_encoded(rows, type_name), type_name, rows.shape)


def _normal(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=shape) * 0.02).astype(np.float32)


def _heavy_tailed(*shape: int) -> np.ndarray:
    return (np.random.default_rng(1).standard_t(2, size=shape) * 0.02).astype(np.float32)


def _error_bound(rows: np.ndarray, type_name: str) -> np.ndarray:
    """What rounding can make of each value: half a level, and the rounding of scale and least."""
    blocks = rows.astype(np.float64).reshape(len(rows), -1, 32)
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    low, high = blocks.min(axis=2, keepdims=True), blocks.max(axis=2, keepdims=True)
    half, smallest = 2.0**-11, 32 * 2.0**-24
    if type_name in ("F32", "F16", "BF16"):
        bound = np.abs(blocks) * {"F32": 0, "F16": 2.0**-11, "BF16": 2.0**-8}[type_name]
        smallest = {"F32": 0, "F16": 2.0**-25, "BF16": 2.0**-133}[type_name]
    elif type_name == "Q8_0":
        bound, smallest = largest * (0.5 / 127 + half), 127 * 2.0**-25
    elif type_name in ("Q4_0", "Q5_0"):
        # One side has a level less: its end is a whole level off.
        bound = largest * (1 / {"Q4_0": 8, "Q5_0": 16}[type_name] + half)
    else:
        levels = {"Q4_1": 15, "Q5_1": 31}[type_name]
        bound = (high - low) * (0.5 / levels + half) + np.abs(low) * half
    return np.broadcast_to(bound * (1 + 1e-5) + smallest, blocks.shape).reshape(rows.shape)


# Below 2**-100 a scale may have no reciprocal, and the package's answer depends on the processor.
_values = st.one_of(
    st.floats(2.0**-100, 60000.0, width=32),
    st.floats(-60000.0, -(2.0**-100), width=32),
    st.sampled_from([*np.arange(-128, 128.5, 0.5), -0.0]).map(float),
)


@given(
    chosen=arrays.arrays(np.float32, 32, elements=_values),
    places=arrays.arrays(np.intp, (2, 64), elements=st.integers(0, 31)),
)
@settings(max_examples=150, deadline=None)
def test_bytes_equal_those_of_the_gguf_package(chosen: np.ndarray, places: np.ndarray) -> None:
    rows = chosen[places]
    for type_name in _TYPES:
        np.testing.assert_array_equal(_encoded(rows, type_name), _ggufs(rows, type_name))


@_EVERY_TYPE
@pytest.mark.parametrize("make", [_normal, _heavy_tailed])
def test_bytes_of_whole_matrices_equal_those_of_the_gguf_package(
    type_name: str, make: type
) -> None:
    # More values than are encoded at once, and no multiple of them.
    rows = make(301, 576)
    np.testing.assert_array_equal(_encoded(rows, type_name), _ggufs(rows, type_name))


@_EVERY_TYPE
def test_ties_between_levels_are_rounded_as_the_gguf_package_rounds_them(type_name: str) -> None:
    # Scale 1 in Q8_0, Q4_0 and Q5_0: halves, and the float32 numbers around them.
    halves = (np.arange(-126.5, 127.5) % 16 - 8).astype(np.float32)
    near = np.concatenate([halves, np.nextafter(halves, 99), np.nextafter(halves, -99)])
    for largest in (-8.0, -16.0, 127.0):
        near = np.resize(near, (24, 32)).astype(np.float32)
        near[:, 0] = largest
        np.testing.assert_array_equal(_encoded(near, type_name), _ggufs(near, type_name))


@_EVERY_TYPE
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 1e-12, 1e3])
@pytest.mark.parametrize("make", [_normal, _heavy_tailed])
def test_a_decoded_value_is_within_its_rounding_of_the_original(
    type_name: str, make: type, scale: float
) -> None:
    rows = make(32, 256) * np.float32(scale)
    error = np.abs(_decoded(rows, type_name).astype(np.float64) - rows)
    assert (error <= _error_bound(rows, type_name)).all()


@_EVERY_TYPE
def test_zeros_and_constants_come_back(type_name: str) -> None:
    rows = np.zeros((3, 64), np.float32)
    rows[1] = 0.5
    rows[2, 5] = -1.0
    np.testing.assert_allclose(_decoded(rows, type_name), rows, atol=5e-4)
    assert not _decoded(rows[:1], type_name).any()


@_EVERY_TYPE
def test_numbers_too_small_for_a_float16_scale_become_zeros(type_name: str) -> None:
    smallest = np.float32(2.0**-149)
    rows = np.stack([np.full(32, smallest), np.linspace(-1e-38, 1e-38, 32), _normal(32) * 1e-36])
    decoded = _decoded(rows.astype(np.float32), type_name)
    assert np.abs(decoded).max() <= np.abs(rows).max()
    if type_name in _BLOCK_TYPES:
        assert not decoded.any()


def test_f16_rounds_as_numpy_does_over_its_whole_range() -> None:
    bits = np.arange(0, np.float32(65520).view(np.uint32), 9973, dtype=np.uint32)
    positive = bits.view(np.float32)
    rows = np.stack([positive, -positive])
    expected = rows.astype(np.float16)
    np.testing.assert_array_equal(_encoded(rows, "F16"), expected.reshape(-1).view(np.uint8))


def test_bf16_rounds_halves_to_even() -> None:
    rows = np.array([[0x3F800000, 0x3F808000, 0x3F818000, 0x3F818001, 0xBF808001]], np.uint32)
    stored = _encoded(rows.view(np.float32), "BF16").view(np.uint16)
    assert [hex(bits) for bits in stored] == ["0x3f80", "0x3f80", "0x3f82", "0x3f82", "0xbf81"]


@_EVERY_TYPE
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_wherever_it_lies(type_name: str, bad: float) -> None:
    for place in (0, 77, -1):
        rows = _normal(160, 512)
        rows.flat[place] = bad
        with pytest.raises(ModelError, match=r"blk\.0\.ffn_up\.weight holds values that are not"):
            _encoded(rows, type_name)


@pytest.mark.parametrize("type_name", _TOO_LARGE)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_value_comes_back_and_the_next_is_refused(type_name: str, sign: int) -> None:
    rows = np.zeros((2, 64), np.float32)
    too_large = np.float32(_TOO_LARGE[type_name])
    rows[1, 7] = sign * np.nextafter(too_large, np.float32(0))
    np.testing.assert_allclose(_decoded(rows, type_name), rows, rtol=2e-3, atol=30)
    rows[1, 7] = sign * too_large
    with pytest.raises(ModelError, match=r"ffn_up\.weight holds a value of") as caught:
        _encoded(rows, type_name)
    assert f"{type_name} holds less" in caught.value.summary
    assert ("F32" if type_name == "BF16" else "BF16 or F32") in caught.value.hint


def test_f32_holds_every_finite_number() -> None:
    rows = np.array([[np.finfo(np.float32).max, np.finfo(np.float32).min, 2.0**-149]], np.float32)
    np.testing.assert_array_equal(_decoded(rows, "F32"), rows)


@_EVERY_TYPE
def test_rows_may_be_any_view_and_stay_as_they_were(type_name: str) -> None:
    matrix = _normal(128, 64)
    expected = _encoded(matrix.T.copy(), type_name)
    before = matrix.copy()
    np.testing.assert_array_equal(_encoded(matrix.T, type_name), expected)
    np.testing.assert_array_equal(_encoded(matrix.T[::1, ::1], type_name), expected)
    np.testing.assert_array_equal(matrix, before)


@_EVERY_TYPE
def test_rows_encoded_one_by_one_make_the_same_tensor(type_name: str) -> None:
    rows = _normal(5, 96)
    one_by_one = [_encoded(rows[i : i + 1], type_name) for i in range(len(rows))]
    np.testing.assert_array_equal(np.concatenate(one_by_one), _encoded(rows, type_name))
    assert _encoded(rows[:0], type_name).size == 0


@_EVERY_TYPE
def test_a_row_longer_than_a_part_is_encoded_whole(type_name: str) -> None:
    rows = _normal(1, 70016)
    np.testing.assert_array_equal(_encoded(rows, type_name), _ggufs(rows, type_name))


@pytest.mark.parametrize("type_name", [*_TYPES, "Q4_K", "Q5_K", "Q6_K"])
def test_sizes_are_those_of_the_gguf_package(type_name: str) -> None:
    kind = gguf.GGMLQuantizationType[type_name]
    shape = gguf.quants.quant_shape_to_byte_shape((3, 512), kind)
    assert encoded_nbytes((3, 512), type_name) == shape[0] * shape[1]


@pytest.mark.parametrize("type_name", [*_BLOCK_TYPES, "Q4_K"])
def test_rows_that_are_no_whole_blocks_are_a_defect_of_the_caller(type_name: str) -> None:
    with pytest.raises(ValueError, match=f"rows of 48 values are no whole blocks of {type_name}"):
        _encoded(_normal(2, 48), type_name)


def test_threads_do_not_disturb_each_other() -> None:
    inputs = [(_normal(160, 512) * (i + 1), _TYPES[i % len(_TYPES)]) for i in range(24)]
    expected = [_encoded(rows, type_name) for rows, type_name in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda item: encode(*item, tensor="t"), inputs)
        for some, others in zip(found, expected, strict=True):
            np.testing.assert_array_equal(some, others)
