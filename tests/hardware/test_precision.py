from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import StrategyError
from llamafarm.hardware.facts import Hardware
from llamafarm.hardware.precision import PrecisionChoice, choose_precision
from llamafarm.strategy.model import (
    BaseModelSpec,
    HardwareSection,
    Method,
    Origin,
    Precision,
    PrecisionFlags,
    Strategy,
    TrainingArgs,
)
from tests.hardware.recorded import A10, ALL, LAPTOP, M2_16GB, SERVER_AMX, T4, V100, make_cuda


def choose(machine: Hardware, on: str | None = None, **parts: Any) -> PrecisionChoice:
    return choose_precision(Strategy(id="s", **parts), on or machine.devices()[0], machine)


def flags(**precision: Any) -> dict[str, HardwareSection]:
    return {"hardware": HardwareSection(precision=Precision(**precision))}


def args(**values: Any) -> dict[str, TrainingArgs]:
    return {"training_args": TrainingArgs(**values)}


def warnings(choice: PrecisionChoice) -> list[str]:
    return [d.reason for d in choice.decisions if d.source == "warning"]


@pytest.mark.parametrize(
    ("name", "mixed", "weights"),
    [
        ("a10", "bf16", "bfloat16"),
        ("h200", "bf16", "bfloat16"),
        ("rtx_3060", "bf16", "bfloat16"),
        ("t4", "fp16", "float16"),
        ("v100", "fp16", "float16"),
        ("m2_16gb", "no", "float32"),
        ("laptop", "no", "float32"),
        ("server_amx", "bf16", "bfloat16"),
    ],
)
def test_each_machine_gets_its_own_format(name: str, mixed: str, weights: str) -> None:
    choice = choose(ALL[name])
    assert (choice.mixed_precision, choice.weights) == (mixed, weights)
    assert warnings(choice) == []


def test_the_reason_for_bf16_is_the_capability() -> None:
    assert choose(A10).decisions[0].reason == "compute capability 8.6 has bf16"


@pytest.mark.parametrize(
    "parts",
    [
        args(mixed_precision="bf16"),
        args(mixed_precision="fp16"),
        flags(use_bf16=True),
        flags(cpu=PrecisionFlags(use_bf16=True)),
        flags(use_fp16=True),
        {"base_model": BaseModelSpec(torch_dtype="bfloat16")},
        {"base_model": BaseModelSpec(torch_dtype="float16")},
    ],
    ids=str,
)
def test_a_cpu_that_emulates_half_precision_stays_in_fp32_and_says_why(
    parts: dict[str, Any],
) -> None:
    choice = choose(LAPTOP, **parts)
    assert (choice.mixed_precision, choice.weights) == ("no", "float32")
    (line,) = warnings(choice)
    assert "emulated" in line
    assert "60 to 100 times slower than fp32" in line


def test_bf16_asked_for_on_a_t4_becomes_fp16_with_the_reason() -> None:
    choice = choose(T4, **flags(use_bf16=True))
    assert (choice.mixed_precision, choice.weights) == ("fp16", "float16")
    assert "compute capability 7.5 has no bf16" in warnings(choice)[0]


def test_bf16_asked_for_on_a_t4_becomes_fp32_when_fp16_is_switched_off() -> None:
    assert choose(T4, **flags(use_bf16=True, use_fp16=False)).mixed_precision == "no"


@pytest.mark.parametrize(
    ("precision", "mixed"),
    [
        ({"use_fp16": True}, "fp16"),
        ({"use_bf16": True}, "bf16"),
        ({"use_bf16": False}, "no"),
        ({"use_fp16": False}, "bf16"),
        ({"use_fp16": True, "cuda": PrecisionFlags(use_fp16=False, use_bf16=True)}, "bf16"),
        ({"cuda": PrecisionFlags(use_fp16=True)}, "fp16"),
        ({"mps": PrecisionFlags(use_fp16=True), "cpu": PrecisionFlags(use_fp16=True)}, "bf16"),
    ],
    ids=str,
)
def test_flat_and_per_device_switches_are_obeyed_and_the_device_in_use_wins(
    precision: dict[str, Any], mixed: str
) -> None:
    assert choose(A10, **flags(**precision)).mixed_precision == mixed


def test_fp16_switched_off_on_a_t4_leaves_fp32() -> None:
    assert choose(T4, **flags(use_fp16=False)).mixed_precision == "no"
    assert choose(V100, **flags(use_fp16=False)).weights == "float32"


def test_scenario_3_keeps_fp32_weights_and_no_autocast_on_apple_silicon() -> None:
    choice = choose(M2_16GB, **flags(use_fp16=False))
    assert (choice.mixed_precision, choice.weights) == ("no", "float32")
    assert choice.decisions[0].source == "strategy"


def test_half_precision_that_is_asked_for_on_apple_silicon_is_obeyed() -> None:
    assert choose(M2_16GB, **args(mixed_precision="fp16")).mixed_precision == "fp16"


def test_training_args_win_over_the_switches_and_both_lines_are_named() -> None:
    origins = {
        "training_args.mixed_precision": Origin(kind="strategy", strategy_id="s", line=12),
        "hardware.precision.use_bf16": Origin(kind="strategy", strategy_id="s", line=7),
    }
    choice = choose(A10, origins=origins, **args(mixed_precision="fp16"), **flags(use_bf16=True))
    assert choice.mixed_precision == "fp16"
    (line,) = warnings(choice)
    assert "training_args.mixed_precision (s, line 12) is fp16 and wins" in line
    assert "hardware.precision.use_bf16 (s, line 7), which is true" in line


@pytest.mark.parametrize(("mixed", "use_bf16"), [("bf16", True), ("no", False), ("fp16", False)])
def test_switches_that_agree_with_training_args_are_no_conflict(mixed: Any, use_bf16: bool) -> None:
    choice = choose(A10, **args(mixed_precision=mixed), **flags(use_bf16=use_bf16))
    assert choice.mixed_precision == mixed
    assert warnings(choice) == []


@pytest.mark.parametrize(
    "precision",
    [
        {"use_fp16": True, "use_bf16": True},
        {"cuda": PrecisionFlags(use_fp16=True, use_bf16=True)},
        {"use_fp16": True, "cuda": PrecisionFlags(use_bf16=True)},
    ],
    ids=str,
)
def test_fp16_and_bf16_on_one_device_are_refused(precision: dict[str, Any]) -> None:
    with pytest.raises(StrategyError, match="both asked for"):
        choose(A10, **flags(**precision))


def test_fp16_and_bf16_on_different_devices_are_not_refused() -> None:
    both = flags(cuda=PrecisionFlags(use_bf16=True), mps=PrecisionFlags(use_fp16=True))
    assert choose(A10, **both).mixed_precision == "bf16"


def test_weights_that_are_trained_stay_in_fp32_under_autocast() -> None:
    choice = choose(A10, method=Method(type="full_finetune"))
    assert (choice.mixed_precision, choice.weights) == ("bf16", "float32")


def test_an_explicit_type_of_the_weights_is_obeyed_where_the_device_has_it() -> None:
    asked = BaseModelSpec(torch_dtype="float32")
    assert choose(A10, base_model=asked).weights == "float32"
    asked = BaseModelSpec(torch_dtype="bfloat16")
    assert choose(A10, base_model=asked, method=Method(type="full_finetune")).weights == "bfloat16"
    assert choose(SERVER_AMX, base_model=asked).weights == "bfloat16"


def test_fp16_weights_are_not_trained_because_loss_scaling_cannot() -> None:
    asked = BaseModelSpec(torch_dtype="float16")
    choice = choose(T4, base_model=asked, method=Method(type="full_finetune"))
    assert choice.weights == "float32"
    assert "loss scaling" in warnings(choice)[0]


def test_tf32_is_on_with_half_precision_and_off_where_fp32_was_asked_for() -> None:
    assert choose(A10).tf32
    assert not choose(A10, **args(mixed_precision="no")).tf32
    assert choose(A10, **args(mixed_precision="no", tf32=True)).tf32
    assert not choose(A10, **flags(use_tf32=False)).tf32
    assert choose(A10, **args(tf32=True), **flags(use_tf32=False)).tf32


def test_tf32_on_a_device_without_it_is_named() -> None:
    choice = choose(T4, **args(tf32=True))
    assert not choice.tf32
    assert warnings(choice) == ["training_args.tf32 has no effect: this device has no TF32"]


def test_a_card_before_volta_calculates_in_fp32() -> None:
    pascal = Hardware(T4.cpu, (make_cuda("GTX 1080", 8, 7, (6, 1)),))
    assert choose(pascal).mixed_precision == "no"
    assert choose(pascal, **args(mixed_precision="fp16")).mixed_precision == "no"


def test_a_cpu_used_beside_a_gpu_follows_the_rules_of_cpus() -> None:
    assert choose(A10, on="cpu", **args(mixed_precision="bf16")).mixed_precision == "no"


def test_origin_files_are_given_in_errors() -> None:
    origin = Origin(kind="strategy", file=Path("s.yaml"), line=9, strategy_id="s")
    with pytest.raises(StrategyError) as caught:
        choose(
            A10,
            origins={"hardware.precision.use_bf16": origin},
            **flags(use_fp16=True, use_bf16=True),
        )
    assert caught.value.problems[0].where == "s.yaml:9"
