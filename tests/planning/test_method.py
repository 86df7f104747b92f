from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llamafarm.errors import StrategyError
from llamafarm.models.shape import LinearLayer
from llamafarm.planning.method import layer_index, lora_num_parameters
from llamafarm.planning.plan import AdapterPlan, TrainingPlan
from llamafarm.strategy.model import Method, Quantization, Strategy, TrainingArgs
from tests.hardware.recorded import A10, LAPTOP, RTX_4090, T4
from tests.planning.building import (
    ALL_LINEAR,
    LLAMA_1B,
    LLAMA_7B,
    SMOLLM2,
    decision,
    plan_for,
    remarks,
)


def plan(shape: Any = SMOLLM2, machine: Any = LAPTOP, **method: Any) -> TrainingPlan:
    return plan_for(Strategy(id="s", method=Method(**method)), machine, shape)


def adapter(shape: Any = SMOLLM2, **method: Any) -> AdapterPlan:
    found = plan(shape, **method).adapter
    assert found is not None
    return found


def test_the_formula_of_lora_is_rank_times_both_widths() -> None:
    assert lora_num_parameters([(576, 576), (192, 576)], 8) == 8 * (1152 + 768)
    assert lora_num_parameters([], 8) == 0


@pytest.mark.parametrize("rank", [0, -1, 193])
def test_a_rank_that_does_not_fit_is_refused(rank: int) -> None:
    with pytest.raises(StrategyError) as caught:
        lora_num_parameters([(576, 576), (192, 576)], rank)
    assert "from 1 to 192" in caught.value.hint


def test_left_out_every_linear_layer_is_adapted_and_never_the_head() -> None:
    assert adapter().target_modules == ALL_LINEAR
    assert adapter(target_modules=("all-linear",)).target_modules == ALL_LINEAR


def test_rank_and_alpha_left_out_follow_the_table() -> None:
    assert (adapter().r, adapter().alpha) == (4, 8)
    assert (adapter(LLAMA_1B).r, adapter(LLAMA_1B).alpha) == (8, 16)
    assert adapter(r=5).alpha == 10


def test_the_default_rank_never_exceeds_the_narrowest_layer() -> None:
    thin = replace(SMOLLM2, linear_layers=(LinearLayer("model.layers.0.a_proj", 2, 64),))
    assert adapter(thin).r == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r", 16),
        ("alpha", 7.0),
        ("dropout", 0.15),
        ("bias", "lora_only"),
        ("target_modules", ("q_proj", "v_proj")),
        ("modules_to_save", ("embed_tokens",)),
        ("layers_to_transform", (0, 3)),
        ("use_rslora", True),
        ("use_dora", True),
    ],
)
def test_each_written_setting_reaches_the_adapter(name: str, value: Any) -> None:
    assert getattr(adapter(**{name: value}), name) == value


def test_a_layers_pattern_reaches_the_adapter() -> None:
    found = adapter(layers_to_transform=(1,), layers_pattern="layers")
    assert found.layers_pattern == "layers"


def test_trainable_parameters_are_counted_over_the_adapted_layers() -> None:
    assert plan(r=4, target_modules=("q_proj",)).num_trainable_parameters == 4 * 1152 * 30
    assert plan(r=4).num_trainable_parameters == 1_221_120


def test_only_the_chosen_blocks_count() -> None:
    chosen = plan(r=4, target_modules=("q_proj",), layers_to_transform=(0, 7))
    assert chosen.num_trainable_parameters == 4 * 1152 * 2


def test_dora_adds_a_magnitude_for_each_output() -> None:
    plain, dora = plan(r=4), plan(r=4, use_dora=True)
    outputs = sum(layer.d_out for layer in SMOLLM2.linear_layers)
    assert dora.num_trainable_parameters - plain.num_trainable_parameters == outputs


def test_modules_that_are_saved_count_whole() -> None:
    plain, saved = plan(r=4), plan(r=4, modules_to_save=("embed_tokens",))
    assert saved.num_trainable_parameters - plain.num_trainable_parameters == 49152 * 576


def test_full_fine_tuning_trains_everything_and_has_no_adapter() -> None:
    full = plan(type="full_finetune")
    assert full.adapter is None
    assert full.num_trainable_parameters == SMOLLM2.num_parameters


def test_adapter_settings_beside_full_fine_tuning_are_named() -> None:
    full = plan(type="full_finetune", r=8, target_modules=("q_proj",))
    assert remarks(full, "method.r")
    assert remarks(full, "method.target_modules")


def test_a_rank_outside_the_row_is_warned_about_and_kept() -> None:
    wide = plan(r=64)
    assert wide.adapter is not None
    assert wide.adapter.r == 64
    assert remarks(wide, "method.r") == [
        "method.r=64 is outside what the table advises for 0.135B parameters: 4 to 8"
    ]
    assert remarks(plan(r=8), "method.r") == []


@pytest.mark.parametrize(
    ("machine", "dtype"), [(RTX_4090, "bfloat16"), (T4, "float16"), (LAPTOP, "float32")]
)
def test_qlora_calculates_in_the_precision_of_the_device(machine: Any, dtype: str) -> None:
    quantization = plan(LLAMA_1B, machine, type="qlora").quantization
    assert quantization is not None
    assert (quantization.bits, quantization.quant_type) == (4, "nf4")
    assert quantization.double_quant
    assert quantization.compute_dtype == dtype


def test_every_setting_of_the_quantisation_reaches_the_plan() -> None:
    written = Quantization(
        load_in_4bit=True,
        bnb_4bit_quant_type="fp4",
        bnb_4bit_use_double_quant=False,
        bnb_4bit_compute_dtype="float32",
    )
    quantization = plan(LLAMA_1B, A10, type="qlora", quantization=written).quantization
    assert quantization is not None
    assert (quantization.quant_type, quantization.double_quant) == ("fp4", False)
    assert quantization.compute_dtype == "float32"


def test_lora_on_a_quantised_base_is_qlora() -> None:
    quantized = plan(LLAMA_1B, A10, quantization=Quantization(load_in_4bit=True))
    assert quantized.quantization is not None
    assert decision(quantized, "method.type").value == "qlora"
    eight = plan(LLAMA_1B, A10, type="qlora", quantization=Quantization(load_in_8bit=True))
    assert eight.quantization is not None
    assert eight.quantization.bits == 8


def test_a_compute_type_that_the_device_lacks_is_replaced_with_the_reason() -> None:
    written = Quantization(bnb_4bit_compute_dtype="bfloat16")
    found = plan(SMOLLM2, LAPTOP, type="qlora", quantization=written)
    assert found.quantization is not None
    assert found.quantization.compute_dtype == "float32"
    path = "method.quantization.bnb_4bit_compute_dtype"
    assert "asks for bfloat16, and float32 is used" in remarks(found, path)[0]


def test_eight_bits_on_a_cpu_are_warned_about() -> None:
    found = plan(SMOLLM2, LAPTOP, quantization=Quantization(load_in_8bit=True))
    assert "slow on a CPU" in remarks(found, "method.quantization.load_in_8bit")[0]


def test_plain_lora_has_no_quantisation() -> None:
    assert plan(LLAMA_7B, A10).quantization is None


@pytest.mark.parametrize(
    ("name", "pattern", "index"),
    [
        ("model.layers.3.self_attn.q_proj", None, 3),
        ("transformer.h.11.attn.c_attn", None, 11),
        ("model.layers.3.self_attn.q_proj", "layers", 3),
        ("model.layers.3.self_attn.q_proj", "h", None),
        ("lm_head", None, None),
    ],
)
def test_the_block_of_a_layer_is_read_from_its_name(
    name: str, pattern: str | None, index: int | None
) -> None:
    assert layer_index(name, pattern) == index


def test_the_targets_are_explained_with_their_number() -> None:
    reason = decision(plan(), "method.target_modules").reason
    assert reason == "every linear layer of LlamaForCausalLM except the head: 210 layers"


def test_an_optimizer_of_the_strategy_does_not_change_the_method() -> None:
    sgd = plan_for(Strategy(id="s", training_args=TrainingArgs(optim="sgd")))
    assert sgd.num_trainable_parameters == 1_221_120
