"""Useful work is counted as the formula says."""

from __future__ import annotations

from pathlib import Path

from bench.gemm_limit import Dimensions, ProbeSpec, best_rate, probe_shapes, useful_flops
from bench.spec import Row

SMOLLM2 = Dimensions(
    num_layers=30,
    hidden_size=576,
    intermediate_size=1536,
    query_size=576,
    key_value_size=192,
    vocab_size=49152,
)


def row(length: int, trained: int) -> Row:
    return Row((1,) * length, (-100,) * (length - trained) + (1,) * trained)


def test_work_of_smollm2_by_hand() -> None:
    linear, head, adapter = 30 * 3_538_944, 49152 * 576, 30 * 8 * 10_176
    attention = 2 * 30 * 576 * 100**2
    expected = 4 * (linear * 100 + head * 40) + 3 * attention + 6 * adapter * 100
    assert useful_flops([row(100, 40)], SMOLLM2, lora_r=8) == expected


def test_two_conversations_do_not_attend_to_each_other() -> None:
    one = useful_flops([row(200, 80)], SMOLLM2, 8)
    two = useful_flops([row(100, 40)] * 2, SMOLLM2, 8)
    assert one - two == 3 * 2 * 30 * 576 * (200**2 - 2 * 100**2)


def test_the_head_costs_only_where_there_is_a_label() -> None:
    fewer = useful_flops([row(100, 10)], SMOLLM2, 8)
    assert useful_flops([row(100, 40)], SMOLLM2, 8) - fewer == 4 * 30 * 49152 * 576


def test_dimensions_are_read_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, '
        '"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152}'
    )
    assert Dimensions.read(tmp_path) == SMOLLM2
    assert SMOLLM2.layer_linears[1] == (576, 192)


def test_the_probe_holds_the_models_own_products() -> None:
    shapes = probe_shapes(SMOLLM2, tokens=760, labels=340)
    assert len(shapes) == 5
    assert (760, 576, 1536) in shapes
    assert (340, 576, 49152) in shapes


def test_the_probe_gives_a_rate() -> None:
    assert best_rate(ProbeSpec(((8, 8, 8), (16, 16, 16)), threads=1, seconds_each=0)) > 0
