"""The shipped strategies: all load, each says why, and the seed's ones hold the seed's values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from llamafarm.strategy.loader import load_strategy, load_strategy_file
from llamafarm.strategy.model import Strategy

DEMOS = Path(__file__).parents[2] / "demos"
FILE = DEMOS / "strategies.yaml"
SHIPPED = (
    "demo3_quick",
    "demo3_training_optimized",
    "small_cpu",
    "nvidia_gpu",
    "apple_silicon",
    "qlora",
    "full_finetune",
    "scenario_1_small_dataset",
    "scenario_2_large_gpu",
    "scenario_3_apple",
)
# As they stand in the overview, under `config:`.
SCENARIOS = {
    "scenario_1_small_dataset": """
method:
  r: 4          # Low rank
  dropout: 0.15 # High dropout
training_args:
  num_train_epochs: 2  # Few epochs
  learning_rate: 0.00005  # Low LR
  weight_decay: 0.01  # Regularization
  eval_strategy: "steps"
  eval_steps: 20  # Frequent evaluation
""",
    "scenario_2_large_gpu": """
hardware:
  device: cuda
  precision:
    use_bf16: true
method:
  r: 32  # Higher rank
training_args:
  per_device_train_batch_size: 8
  gradient_accumulation_steps: 1
  mixed_precision: bf16
""",
    "scenario_3_apple": """
hardware:
  device: mps
  precision:
    use_fp16: false  # FP32 for stability
training_args:
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
""",
}


def load(name: str) -> Strategy:
    return load_strategy(FILE, name, environ={})


def test_file_holds_exactly_the_shipped_strategies_in_version_2() -> None:
    found = load_strategy_file(FILE, environ={})
    assert tuple(entry.id for entry in found.entries) == SHIPPED
    assert found.problems == ()
    assert found.notices == ()
    assert yaml.safe_load(FILE.read_text("utf-8"))["version"] == "2.0"


@pytest.mark.parametrize("name", SHIPPED)
def test_strategy_loads_without_a_word(name: str) -> None:
    strategy = load(name)
    assert strategy.backend == "pytorch"
    assert strategy.title
    assert strategy.description
    assert strategy.notices == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_comment_before_the_strategy_says_why(name: str) -> None:
    lines = FILE.read_text("utf-8").splitlines()
    above = lines[lines.index(f"{name}:") - 1]
    assert above.startswith("# ")


@pytest.mark.parametrize("name", SHIPPED)
def test_its_data_is_the_demos_and_lies_beside_the_file(name: str) -> None:
    dataset = load(name).dataset
    assert dataset.train_file == "datasets/medical/medical_qa_train.jsonl"
    assert dataset.eval_file == "datasets/medical/medical_qa_eval.jsonl"
    assert (DEMOS / dataset.train_file).with_name("medical_qa.jsonl").is_file()


def test_demo3_training_optimized_has_the_original_values() -> None:
    strategy = load("demo3_training_optimized")
    method, args = strategy.method, strategy.training_args
    assert strategy.base_model.id is None
    assert (method.type, method.r, method.alpha, method.dropout) == ("lora", 4, 8, 0.1)
    assert method.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert args.num_train_epochs == 2
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (1, 4)
    assert args.learning_rate == 5e-5
    assert args.warmup_steps == 10
    assert args.weight_decay == 0.01
    assert args.logging_steps == 5
    assert (args.eval_strategy, args.eval_steps) == ("steps", 50)
    assert (args.save_strategy, args.save_steps, args.save_total_limit) == ("steps", 50, 2)
    assert args.load_best_model_at_end
    assert (args.metric_for_best_model, args.greater_is_better) == ("eval_loss", False)
    assert args.output_dir == "./fine_tuned_models/medical_optimized"


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_is_the_overviews_snippet(name: str) -> None:
    strategies = yaml.safe_load(FILE.read_text("utf-8"))
    config = strategies[name]["components"]["fine_tuner"]["config"]
    assert config == yaml.safe_load(SCENARIOS[name])


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_is_pasted_with_its_comments(name: str) -> None:
    def plain(text: str) -> str:
        return "\n".join(line.strip() for line in text.strip().splitlines())

    block = re.split(r"^(?=\w)", FILE.read_text("utf-8"), flags=re.MULTILINE)
    text = next(part for part in block if part.startswith(f"{name}:"))
    assert plain(SCENARIOS[name]) in plain(text)


def test_the_demos_strategy_is_small_and_evaluates_often() -> None:
    strategy = load("demo3_quick")
    args = strategy.training_args
    assert strategy.base_model.id is None
    assert strategy.hardware.device == "auto"
    assert strategy.method.type == "lora"
    assert args.max_steps is not None
    assert args.eval_steps is not None
    assert 4 <= args.max_steps / args.eval_steps <= 12
    assert args.output_dir is None


def test_strategies_for_one_kind_of_machine_name_it() -> None:
    assert load("small_cpu").hardware.device == "cpu"
    assert load("nvidia_gpu").hardware.device == "cuda"
    assert load("apple_silicon").hardware.device == "mps"
