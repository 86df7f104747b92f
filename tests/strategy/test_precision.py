"""`fp16`, `bf16` and `mixed_precision` are three ways to say one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import load, refuse, strategy_text


@pytest.mark.parametrize(
    ("args", "mixed_precision", "warnings"),
    [
        ({}, None, 0),
        ({"fp16": True}, "fp16", 0),
        ({"bf16": True}, "bf16", 0),
        ({"fp16": False, "bf16": True}, "bf16", 0),
        ({"fp16": False, "bf16": False}, "no", 0),
        ({"fp16": False}, "no", 0),
        ({"bf16": False}, "no", 0),
        ({"mixed_precision": "bf16", "bf16": True}, "bf16", 0),
        ({"mixed_precision": "no", "fp16": False}, "no", 0),
        ({"mixed_precision": "no", "fp16": True}, "no", 1),
        ({"mixed_precision": "bf16", "bf16": False}, "bf16", 1),
    ],
)
def test_three_spellings_make_one_value(
    tmp_path: Path, args: dict[str, Any], mixed_precision: str | None, warnings: int
) -> None:
    strategy = load(tmp_path, strategy_text({"training_args": args}))
    assert strategy.training_args.mixed_precision == mixed_precision
    assert [n.severity for n in strategy.notices] == ["warning"] * warnings
    if mixed_precision is not None:
        assert strategy.origin("training_args.mixed_precision") is not None


@pytest.mark.parametrize(
    "config",
    [
        {"training_args": {"fp16": True, "bf16": True}},
        {"training_args": {"fp16": True, "mixed_precision": "bf16"}},
        {"hardware": {"precision": {"use_fp16": True, "use_bf16": True}}},
        {"hardware": {"precision": {"cuda": {"use_fp16": True, "use_bf16": True}}}},
    ],
)
def test_both_halves_on_one_device_are_an_error(tmp_path: Path, config: dict[str, Any]) -> None:
    (problem,) = refuse(tmp_path, strategy_text(config)).problems
    assert problem.message.startswith("fp16 and bf16 are both asked for: ")
    assert problem.message.count("(line ") == 2


@pytest.mark.parametrize(
    "precision",
    [
        {"cuda": {"use_bf16": True}, "mps": {"use_fp16": True}},
        {"use_fp16": True, "cuda": {"use_bf16": True}},
    ],
)
def test_different_devices_may_differ(tmp_path: Path, precision: dict[str, Any]) -> None:
    strategy = load(tmp_path, strategy_text({"hardware": {"precision": precision}}))
    assert strategy.training_args.mixed_precision is None
    assert not strategy.notices


def test_a_switch_that_is_off_leaves_the_other_to_the_hardware_block(tmp_path: Path) -> None:
    config = {
        "training_args": {"fp16": False},
        "hardware": {"precision": {"use_bf16": True}},
    }
    assert load(tmp_path, strategy_text(config)).training_args.mixed_precision is None


@pytest.mark.parametrize(
    ("args", "optimization", "mixed_precision"),
    [
        ({"fp16": True}, "no", "fp16"),
        ({"bf16": True}, "fp16", "bf16"),
        ({"mixed_precision": "no"}, "bf16", "no"),
        ({"fp16": False}, "fp16", "no"),
    ],
)
def test_training_args_win_over_the_optimization_block_with_a_warning(
    tmp_path: Path, args: dict[str, Any], optimization: str, mixed_precision: str
) -> None:
    config = {
        "hardware": {"optimization": {"mixed_precision": optimization}},
        "training_args": args,
    }
    strategy = load(tmp_path, strategy_text(config))
    assert strategy.training_args.mixed_precision == mixed_precision
    (notice,) = strategy.notices
    assert notice.severity == "warning"
    assert notice.message.startswith("training_args.")
    assert " wins over hardware.optimization.mixed_precision: " in notice.message


def test_a_half_that_is_off_agrees_with_the_other_one(tmp_path: Path) -> None:
    config = {
        "hardware": {"optimization": {"mixed_precision": "bf16"}},
        "training_args": {"fp16": False},
    }
    strategy = load(tmp_path, strategy_text(config))
    assert strategy.training_args.mixed_precision == "bf16"
    assert not strategy.notices


def test_the_nearer_of_two_strategies_decides(tmp_path: Path) -> None:
    text = """
    base: {components: {fine_tuner: {config: {training_args: {mixed_precision: fp16}}}}}
    child: {extends: base, components: {fine_tuner: {config: {training_args: {bf16: true}}}}}
    """
    assert load(tmp_path, text, name="child").training_args.mixed_precision == "bf16"


def test_the_optimization_block_fills_what_training_args_leave_open(tmp_path: Path) -> None:
    config = {"hardware": {"optimization": {"mixed_precision": False}}}
    strategy = load(tmp_path, strategy_text(config))
    assert strategy.training_args.mixed_precision == "no"
