"""The three scenarios, pasted as they stand: each parameter is seen where it takes effect.

Scenarios 2 and 3 are planned for recorded machines. To see their steps, the plan is then carried
out on this CPU; nothing else of it is changed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llamafarm.hardware.facts import Hardware
from tests.hardware.recorded import A10, H200, LAPTOP, M2_16GB, T4

from . import seed
from .observed import Observed, observe
from .typed import changed_directory, events_of, plan_of, refusal_of, write_rows

TRAIN = "train --strategy pasted --strategy-file pasted.yaml --dataset data.jsonl"
ROWS = 100


def paste(directory: Path, snippet: str) -> None:
    (directory / "pasted.yaml").write_text(seed.pasted(snippet), "utf-8")
    write_rows(directory / "data.jsonl", ROWS)


def run_of(
    factory: pytest.TempPathFactory, snippet: str, hardware: Hardware, *more: str
) -> Observed:
    with changed_directory(factory.mktemp("scenario")) as directory:
        paste(directory, snippet)
        return observe(TRAIN, *more, hardware=hardware)


@pytest.fixture(scope="module")
def small_dataset(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Scenario 1, whole."""
    return run_of(tmp_path_factory, seed.SCENARIO_1, LAPTOP, "--base-model", str(model_dir))


@pytest.fixture(scope="module")
def large_gpu(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Scenario 2 on a recorded H200, three steps."""
    more = ("--base-model", str(model_dir), "--set", "max_steps=3")
    return run_of(tmp_path_factory, seed.SCENARIO_2, H200, *more)


@pytest.fixture(scope="module")
def apple(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Scenario 3 on a recorded M2, three steps."""
    more = ("--base-model", str(model_dir), "--set", "max_steps=3")
    return run_of(tmp_path_factory, seed.SCENARIO_3, M2_16GB, *more)


# Scenario 1.


@pytest.mark.seed(183, 184)
def test_1_r_reaches_peft(small_dataset: Observed) -> None:
    assert small_dataset.peft.r == 4


@pytest.mark.seed(184)
def test_1_alpha_is_twice_r_where_only_r_is_given(small_dataset: Observed) -> None:
    assert small_dataset.peft.lora_alpha == 8


@pytest.mark.seed(183, 77)
def test_1_a_method_without_a_type_is_lora(small_dataset: Observed) -> None:
    assert small_dataset.peft.peft_type.value == "LORA"


@pytest.mark.seed(185)
def test_1_dropout_reaches_every_adapter(small_dataset: Observed) -> None:
    assert small_dataset.peft.lora_dropout == 0.15
    assert small_dataset.dropouts == {0.15}


@pytest.mark.seed(187)
def test_1_every_row_is_trained_on_twice(small_dataset: Observed) -> None:
    assert sum(map(sum, small_dataset.steps)) == 2 * (ROWS - 10)
    (last,) = events_of(small_dataset.run_dir, "step")[-1:]
    assert last["epoch"] == 2


@pytest.mark.seed(188)
def test_1_learning_rate_is_the_peak_of_the_steps(small_dataset: Observed) -> None:
    assert {group["lr"] for group in small_dataset.optimizer_groups} == {5e-5}
    assert max(e["learning_rate"] for e in events_of(small_dataset.run_dir, "step")) == 5e-5


@pytest.mark.seed(189)
def test_1_weight_decay_reaches_the_optimizer(small_dataset: Observed) -> None:
    groups = small_dataset.optimizer_groups
    decays = {p.ndim >= 2: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {True: 0.01}


@pytest.mark.seed(190, 191)
def test_1_evaluations_are_every_20_steps_before_the_first_and_after_the_last(
    small_dataset: Observed,
) -> None:
    last = len(small_dataset.steps)
    assert 20 < last < 40
    assert [e["step"] for e in events_of(small_dataset.run_dir, "eval")] == [0, 20, last]


@pytest.mark.seed(187)
def test_1_the_table_would_train_longer_on_so_few_rows_and_says_so(
    small_dataset: Observed,
) -> None:
    assert "2 epochs; the table advises 5 to 10 for 90 training examples" in small_dataset.done.err


@pytest.mark.seed(185, 189)
@pytest.mark.parametrize(
    ("line", "changed"),
    [("dropout: 0.15", "dropout: 0.4"), ("weight_decay: 0.01", "weight_decay: 0.3")],
)
def test_1_another_value_arrives_too(
    line: str, changed: str, model_dir: Path, tmp_path: Path
) -> None:
    """Values that are defaults elsewhere could arrive by chance."""
    paste(tmp_path, seed.SCENARIO_1.replace(line, changed))
    plan = plan_of(TRAIN, "--base-model", str(model_dir))
    assert plan.adapter is not None
    values = (plan.adapter.dropout, plan.optimizer.weight_decay)
    assert values == ((0.4, 0.01) if "dropout" in changed else (0.15, 0.3))


# Scenario 2.


@pytest.mark.seed(198)
def test_2_device_cuda_is_the_first_nvidia_card(large_gpu: Observed) -> None:
    assert large_gpu.plan is not None
    assert (large_gpu.plan.device.device, large_gpu.plan.device.name) == ("cuda:0", "NVIDIA H200")


@pytest.mark.seed(198)
def test_2_device_cuda_is_not_what_auto_would_take(model_dir: Path, tmp_path: Path) -> None:
    both = Hardware(H200.cpu, (*M2_16GB.accelerators, *H200.accelerators))
    paste(tmp_path, seed.SCENARIO_2)
    more = ("--base-model", str(model_dir))
    assert plan_of(TRAIN, *more, hardware=both).device.device == "cuda:0"
    paste(tmp_path, seed.SCENARIO_3)
    assert plan_of(TRAIN, *more, hardware=both).device.device == "mps"


@pytest.mark.seed(199, 200, 206)
def test_2_bf16_is_the_type_of_weights_and_products(large_gpu: Observed) -> None:
    assert large_gpu.base_dtypes == {torch.bfloat16}
    assert set(large_gpu.autocast) == {torch.bfloat16}


@pytest.mark.seed(199, 200)
@pytest.mark.parametrize("value", ["{use_bf16: false}", "{cuda: {use_bf16: false}}"])
def test_2_use_bf16_alone_decides_flat_or_under_its_device(
    value: str, model_dir: Path, tmp_path: Path
) -> None:
    lines = seed.SCENARIO_2.replace("    mixed_precision: bf16\n", "")
    lines = lines.replace("\n      use_bf16: true", f" {value}")
    paste(tmp_path, lines)
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=A10)
    assert (plan.device.mixed_precision, plan.model.dtype) == ("no", "float32")


@pytest.mark.seed(200, 206)
def test_2_on_a_card_without_bf16_fp16_is_used_and_said(model_dir: Path, tmp_path: Path) -> None:
    paste(tmp_path, seed.SCENARIO_2)
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=T4)
    assert plan.device.mixed_precision == "fp16"
    text = "training_args.mixed_precision asks for bf16, and fp16 is used: compute capability 7.5"
    assert any(warning.startswith(text) for warning in plan.warnings)


@pytest.mark.seed(206)
def test_2_mixed_precision_alone_decides(model_dir: Path, tmp_path: Path) -> None:
    lines = seed.SCENARIO_2.replace("    precision:\n      use_bf16: true\n", "")
    paste(tmp_path, lines.replace("mixed_precision: bf16", "mixed_precision: fp16"))
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=A10)
    assert plan.device.mixed_precision == "fp16"


@pytest.mark.seed(206)
@pytest.mark.parametrize("value", ["no", '"no"', "false"])
def test_2_mixed_precision_switched_off_wins_over_use_bf16_and_says_so(
    value: str, model_dir: Path, tmp_path: Path
) -> None:
    lines = seed.SCENARIO_2.replace("mixed_precision: bf16", f"mixed_precision: {value}")
    paste(tmp_path, lines)
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=A10)
    assert plan.device.mixed_precision == "no"
    (text,) = [warning for warning in plan.warnings if "wins over" in warning]
    assert "line 15" in text and "line 9" in text


@pytest.mark.seed(202)
def test_2_r_reaches_peft(large_gpu: Observed) -> None:
    assert (large_gpu.peft.r, large_gpu.peft.lora_alpha) == (32, 64)


@pytest.mark.seed(204, 205)
def test_2_a_step_is_one_micro_batch_of_eight(large_gpu: Observed) -> None:
    assert large_gpu.steps == [[8], [8], [8]]


@pytest.mark.seed(205)
def test_2_accumulation_of_training_args_wins_over_hardware_optimization_and_says_so(
    model_dir: Path, tmp_path: Path
) -> None:
    more_lines = "    optimization:\n      gradient_accumulation_steps: 4\n  method:"
    paste(tmp_path, seed.SCENARIO_2.replace("  method:", more_lines))
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=H200)
    assert plan.batch.accumulation_steps == 1
    told = refusal_of(TRAIN)
    (text,) = [line for line in told.splitlines() if "gradient_accumulation_steps" in line]
    assert "training_args.gradient_accumulation_steps: 1 (line 16) wins over" in text
    assert "hardware.optimization.gradient_accumulation_steps: 4 (line 11)" in text


@pytest.mark.seed(205, 50)
def test_2_accumulation_of_hardware_optimization_holds_where_training_args_is_silent(
    model_dir: Path, tmp_path: Path
) -> None:
    more_lines = "    optimization:\n      gradient_accumulation_steps: 4\n  method:"
    lines = seed.SCENARIO_2.replace("    gradient_accumulation_steps: 1\n", "")
    paste(tmp_path, lines.replace("  method:", more_lines))
    plan = plan_of(TRAIN, "--base-model", str(model_dir), hardware=H200)
    assert plan.batch.accumulation_steps == 4


# Scenario 3.


@pytest.mark.seed(213)
def test_3_device_mps_is_the_apple_gpu(apple: Observed) -> None:
    assert apple.plan is not None
    assert (apple.plan.device.device, apple.plan.device.name) == ("mps", "Apple M2")


@pytest.mark.seed(215)
def test_3_weights_are_fp32_and_nothing_is_cast(apple: Observed) -> None:
    assert apple.base_dtypes == {torch.float32}
    assert set(apple.autocast) == {None}


@pytest.mark.seed(215)
def test_3_use_fp16_false_is_obeyed_where_fp16_would_be_chosen(
    model_dir: Path, tmp_path: Path
) -> None:
    more = ("--base-model", str(model_dir))
    on_cuda = seed.SCENARIO_3.replace("device: mps", "device: cuda")
    paste(tmp_path, on_cuda.replace("    precision:\n      use_fp16: false", "    precision: {}"))
    assert plan_of(TRAIN, *more, hardware=T4).device.mixed_precision == "fp16"
    paste(tmp_path, on_cuda)
    assert plan_of(TRAIN, *more, hardware=T4).device.mixed_precision == "no"


@pytest.mark.seed(217, 218)
def test_3_a_step_is_two_micro_batches_of_two(apple: Observed) -> None:
    assert apple.steps == [[2, 2], [2, 2], [2, 2]]


@pytest.mark.seed(217, 218)
def test_3_the_effective_batch_is_shown(apple: Observed) -> None:
    lines = [line.split() for line in apple.done.err.splitlines()]
    assert ["effective_batch_size", "4"] in [words[:2] for words in lines]


# Both, where their device is missing.


@pytest.mark.seed(198, 213)
@pytest.mark.parametrize(
    ("snippet", "device"), [(seed.SCENARIO_2, "cuda"), (seed.SCENARIO_3, "mps")]
)
@pytest.mark.parametrize(
    "line", [TRAIN, "setup pasted.yaml --strategy pasted --verify-only"], ids=["train", "setup"]
)
def test_a_missing_device_is_refused_with_the_alternative(
    line: str, snippet: str, device: str, tmp_path: Path, packaged_model_dir: Path
) -> None:
    paste(tmp_path, snippet)
    text = " ".join(refusal_of(line).split())
    assert f"expected one of cpu ({LAPTOP.cpu.name}) (got {device})" in text
    assert "`device: auto`" in text and "`--set hardware.device=cpu`" in text
    assert "pasted.yaml:7" in text


@pytest.mark.seed(198, 213)
@pytest.mark.parametrize("snippet", [seed.SCENARIO_2, seed.SCENARIO_3])
def test_a_missing_device_can_be_replaced_as_the_message_says(
    snippet: str, model_dir: Path, tmp_path: Path
) -> None:
    paste(tmp_path, snippet)
    more = ("--base-model", str(model_dir), "--set", "hardware.device=cpu")
    assert plan_of(TRAIN, *more).device.device == "cpu"
