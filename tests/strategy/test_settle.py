"""Two keys for one value: which one wins, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import load, refuse, strategy_text, value_at


@pytest.mark.parametrize(
    ("config", "beside", "path", "value"),
    [
        (
            {
                "training_args": {"gradient_accumulation_steps": 4},
                "hardware": {"optimization": {"gradient_accumulation_steps": 2}},
            },
            {},
            "training_args.gradient_accumulation_steps",
            4,
        ),
        (
            {
                "hardware": {"optimization": {"mixed_precision": "no"}},
                "training_args": {"mixed_precision": "bf16"},
            },
            {},
            "training_args.mixed_precision",
            "bf16",
        ),
        (
            {"dataset": {"path": "config.jsonl", "seed": 1, "max_length": 64}},
            {"dataset": {"path": "beside.jsonl", "max_length": 32}},
            "dataset.path",
            "beside.jsonl",
        ),
        (
            {"training_args": {"seed": 1}, "environment": {"seed": 2}},
            {},
            "training_args.seed",
            1,
        ),
        (
            {"training_args": {"max_seq_length": 64, "cutoff_len": 32}},
            {},
            "training_args.max_seq_length",
            64,
        ),
        (
            {"training": {"learning_rate": 1}, "learning_rate": 2},
            {},
            "training_args.learning_rate",
            1.0,
        ),
        ({"method": {"r": 4, "lora_r": 8}}, {}, "method.r", 4),
        (
            {"training": {"early_stopping": False, "early_stopping_patience": 5}},
            {},
            "training_args.early_stopping_patience",
            5,
        ),
    ],
)
def test_the_nearer_place_wins_with_a_warning_that_names_both_lines(
    tmp_path: Path, config: dict[str, Any], beside: dict[str, Any], path: str, value: object
) -> None:
    strategy = load(tmp_path, strategy_text(config, beside=beside))
    assert value_at(strategy, path) == value
    warning = next(n for n in strategy.notices if n.severity == "warning")
    assert " wins over " in warning.message
    assert warning.message.count("(line ") == 2
    loser_line = warning.message.rsplit("(line ", 1)[1].rstrip(")")
    assert warning.where == f"{tmp_path}/strategies.yaml:{loser_line}"


def test_the_words_of_the_warning(tmp_path: Path) -> None:
    text = """
    s:
      components:
        fine_tuner:
          config:
            hardware:
              optimization: {gradient_accumulation_steps: 2}
            training_args: {gradient_accumulation_steps: 4}
    """
    (warning,) = load(tmp_path, text).notices
    assert warning.message == (
        "training_args.gradient_accumulation_steps: 4 (line 8) wins over "
        "hardware.optimization.gradient_accumulation_steps: 2 (line 7)"
    )
    assert warning.severity == "warning"


@pytest.mark.parametrize(
    "config",
    [
        {"training_args": {"seed": 1}, "environment": {"seed": 1}},
        {"training_args": {"max_length": 64, "max_seq_length": 64}},
        {"base_model": {"huggingface_id": "org/m", "name": "A title"}},
        {"training_args": {"mixed_precision": "bf16", "bf16": True, "fp16": False}},
    ],
)
def test_two_places_that_agree_are_no_matter(tmp_path: Path, config: dict[str, Any]) -> None:
    assert not load(tmp_path, strategy_text(config)).notices


def test_a_data_source_beside_components_displaces_the_one_in_config(tmp_path: Path) -> None:
    text = strategy_text(
        {"dataset": {"path": "config.jsonl", "max_samples": 5}},
        beside={"dataset": {"train_file": "t.jsonl"}},
    )
    strategy = load(tmp_path, text)
    assert strategy.dataset.path is None
    assert strategy.dataset.max_samples == 5
    (notice,) = strategy.notices
    assert notice.message == (
        'dataset.train_file: "t.jsonl" (line 10) takes the place of '
        'dataset.path: "config.jsonl" (line 7)'
    )


def test_two_sources_of_one_block_are_left_to_the_planner(tmp_path: Path) -> None:
    text = strategy_text(beside={"dataset": {"path": "a.jsonl", "train_file": "t.jsonl"}})
    strategy = load(tmp_path, text)
    assert (strategy.dataset.path, strategy.dataset.train_file) == ("a.jsonl", "t.jsonl")


def test_a_value_that_loses_is_checked_all_the_same(tmp_path: Path) -> None:
    config = {"method": {"r": 4}, "lora_r": "many"}
    assert "expected an integer >= 1" in refuse(tmp_path, strategy_text(config)).render()


def test_null_beside_a_value_leaves_the_value(tmp_path: Path) -> None:
    assert load(tmp_path, strategy_text({"method": {"r": None, "lora_r": 4}})).method.r == 4


def test_a_null_leaf_counts_as_left_out(tmp_path: Path) -> None:
    config = {"training_args": {"max_steps": None, "run_name": None}, "method": None}
    strategy = load(tmp_path, strategy_text(config))
    assert set(strategy.origins) == {"backend"}
