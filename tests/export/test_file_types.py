from __future__ import annotations

import gguf
import pytest

from llamafarm.errors import UserError
from llamafarm.export.file_types import FILE_TYPES, FileType, parse_file_type, tensor_type

_EVERY_FILE_TYPE = pytest.mark.parametrize("file_type", FILE_TYPES.values(), ids=FILE_TYPES)
_QUANTISED = [t for name, t in FILE_TYPES.items() if name not in ("F32", "F16", "BF16")]


def _type_of(
    file_type: str, name: str, shape: tuple[int, ...], *, num_layers: int = 12, tied: bool = True
) -> str:
    return tensor_type(FILE_TYPES[file_type], name, shape, num_layers=num_layers, tied=tied)


def _layers(file_type: str, part: str, shape: tuple[int, int], num_layers: int) -> str:
    """Types of one matrix in each layer, one digit each: the bits of Q4_K, Q5_0, …"""
    return "".join(
        _type_of(file_type, f"blk.{layer}.{part}.weight", shape, num_layers=num_layers)[1]
        for layer in range(num_layers)
    )


@_EVERY_FILE_TYPE
def test_numbers_and_block_formats_are_ggufs(file_type: FileType) -> None:
    prefix = "ALL_" if file_type.name == "F32" else "MOSTLY_"
    assert file_type.number == gguf.LlamaFileType[prefix + file_type.name]
    assert file_type.tensor_type in gguf.GGMLQuantizationType.__members__
    assert file_type.needs_engine == ("_K" in file_type.name)


@_EVERY_FILE_TYPE
def test_a_name_is_read_in_any_case_and_with_any_hyphens(file_type: FileType) -> None:
    name = file_type.name
    for text in (name, name.lower(), name.replace("_", "-"), name.replace("_", ""), f" {name} "):
        assert parse_file_type(text) is file_type


@pytest.mark.parametrize(
    ("text", "near"),
    [("Q4_K", "Q4_K_M"), ("q4_k_s", "Q4_K_M"), ("fp16", "F16"), ("q8", "Q8_0"), ("q8_1", "Q8_0")],
)
def test_an_unknown_name_brings_the_nearest_and_the_whole_list(text: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_file_type(text)
    assert f"no file type {text!r}; did you mean {near}?" in caught.value.summary
    assert all(name in caught.value.hint for name in FILE_TYPES)


@pytest.mark.parametrize("text", ["auto", "", "int"])
def test_what_resembles_no_type_brings_the_list_alone(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_file_type(text)
    assert "did you mean" not in caught.value.summary
    assert "F32, F16, BF16, Q8_0" in caught.value.hint


@_EVERY_FILE_TYPE
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("output_norm.weight", (256,)),
        ("blk.0.attn_q.bias", (256,)),
        ("blk.0.attn_q_norm.weight", (4, 64)),
        ("rope_freqs.weight", (32,)),
        ("rope_factors_long.weight", (1, 256)),
    ],
)
def test_vectors_norms_and_rope_factors_are_f32_in_every_file(
    file_type: FileType, name: str, shape: tuple[int, ...]
) -> None:
    assert tensor_type(file_type, name, shape, num_layers=12, tied=True) == "F32"


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(
    "name", ["token_embd.weight", "output.weight", "blk.0.ffn_down.weight", "blk.3.attn_v.weight"]
)
def test_a_file_that_is_not_quantised_has_one_type_of_matrix(file_type: str, name: str) -> None:
    assert _type_of(file_type, name, (100, 33)) == file_type


@pytest.mark.parametrize("file_type", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_files_that_need_no_engine_have_an_output_of_eight_bits(file_type: str) -> None:
    shape = (64, 256)
    assert _type_of(file_type, "token_embd.weight", shape, tied=True) == "Q8_0"
    assert _type_of(file_type, "token_embd.weight", shape, tied=False) == file_type
    assert _type_of(file_type, "output.weight", shape, tied=False) == "Q8_0"
    for part in ("attn_v", "attn_qkv", "ffn_down", "ffn_up"):
        assert _type_of(file_type, f"blk.0.{part}.weight", shape) == file_type


@pytest.mark.parametrize(
    ("file_type", "other"), [("Q4_K_M", "Q4_K"), ("Q5_K_M", "Q5_K"), ("Q6_K", "Q6_K")]
)
def test_k_files_have_an_output_of_six_bits(file_type: str, other: str) -> None:
    shape = (64, 256)
    assert _type_of(file_type, "token_embd.weight", shape, tied=True) == "Q6_K"
    assert _type_of(file_type, "token_embd.weight", shape, tied=False) == other
    assert _type_of(file_type, "output.weight", shape, tied=False) == "Q6_K"


# What llama.cpp's own quantizer (v0.5.0) wrote for models of these layers.
@pytest.mark.parametrize(
    ("num_layers", "more_bits"),
    [(7, "--+--++"), (12, "+--+--+--+++"), (16, "++--+--+--+--+++"), (10, "+--+--+-++")],
)
@pytest.mark.parametrize("part", ["attn_v", "attn_qkv", "ffn_down"])
def test_the_mixture_gives_more_bits_to_the_layers_that_llama_cpp_chooses(
    num_layers: int, more_bits: str, part: str
) -> None:
    shape = (256, 512)
    found = _layers("Q4_K_M", part, shape, num_layers)
    assert found == more_bits.replace("+", "6").replace("-", "4")
    found = _layers("Q5_K_M", part, shape, num_layers)
    assert found == more_bits.replace("+", "6").replace("-", "5")
    assert _layers("Q6_K", part, shape, num_layers) == "6" * num_layers


@pytest.mark.parametrize("part", ["attn_q", "attn_k", "attn_output", "ffn_up", "ffn_gate"])
def test_the_mixture_leaves_the_other_matrices_alone(part: str) -> None:
    assert _layers("Q4_K_M", part, (256, 512), 12) == "4" * 12


def test_the_grouped_values_of_eighty_layers_have_five_bits_at_least() -> None:
    # From the same quantizer: 40 of 80 layers Q6_K, the others Q5_K.
    found = _layers("Q4_K_M", "attn_v", (64, 256), 80)
    assert (found.count("6"), found.count("5")) == (40, 40)
    assert _layers("Q4_K_M", "attn_v", (256, 256), 80).count("4") == 40
    assert _layers("Q4_K_M", "ffn_down", (64, 256), 80).count("4") == 40


def test_rows_that_256_does_not_divide_fall_back_as_in_llama_cpp() -> None:
    shape = (192, 576)
    assert _type_of("Q4_K_M", "blk.1.attn_q.weight", shape) == "Q5_0"
    assert _type_of("Q5_K_M", "blk.1.attn_q.weight", shape) == "Q5_1"
    assert _type_of("Q6_K", "blk.1.attn_q.weight", shape) == "Q8_0"
    assert _type_of("Q4_K_M", "blk.0.attn_v.weight", shape) == "Q8_0"
    assert _type_of("Q4_K_M", "token_embd.weight", shape) == "Q8_0"


@pytest.mark.parametrize("file_type", _QUANTISED, ids=lambda file_type: file_type.name)
@pytest.mark.parametrize("name", ["blk.0.ffn_down.weight", "output.weight", "token_embd.weight"])
def test_rows_that_32_does_not_divide_are_f16(file_type: FileType, name: str) -> None:
    assert tensor_type(file_type, name, (320, 336), num_layers=9, tied=False) == "F16"
