"""Whole files: the seed's snippets, old recipes, both shapes of llamafactory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llamafarm.strategy.loader import load_strategy, load_strategy_file
from llamafarm.strategy.model import Strategy

from .support import EXAMPLES


def example(name: str, strategy_id: str | None = None) -> Strategy:
    return load_strategy(EXAMPLES / f"{name}.yaml", strategy_id, environ={})


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_trainable_strategy_of_the_examples_loads(path: Path) -> None:
    file = load_strategy_file(path, environ={})
    trainable = [entry for entry in file.entries if entry.trainable]
    assert trainable
    assert not file.problems
    for entry in trainable:
        assert load_strategy(path, entry.id, environ={}).id == entry.id


def test_the_quick_start_reaches_every_parameter() -> None:
    strategy = example("quick_start")
    assert strategy.title == "Custom Domain Training"
    assert (strategy.method.type, strategy.method.r, strategy.method.alpha) == ("lora", 8, 16)
    args = strategy.training_args
    assert (args.num_train_epochs, args.eval_strategy, args.eval_steps) == (3, "steps", 100)
    origin = strategy.origin("training_args.eval_steps")
    assert origin is not None and origin.line == 15


def test_a_configuration_of_comments_is_all_defaults() -> None:
    strategy = example("no_configuration")
    assert strategy.dataset.train_file == "data_train.jsonl"
    assert strategy.dataset.eval_file == "data_eval.jsonl"
    assert strategy.training_args == type(strategy.training_args)()


def test_the_three_scenarios_reach_every_parameter() -> None:
    small = example("scenarios", "small_dataset")
    assert (small.method.r, small.method.dropout) == (4, 0.15)
    args = small.training_args
    assert (args.num_train_epochs, args.learning_rate, args.weight_decay) == (2, 5e-5, 0.01)
    assert (args.eval_strategy, args.eval_steps) == ("steps", 20)
    large = example("scenarios", "large_gpu")
    assert (large.hardware.device, large.hardware.precision.use_bf16) == ("cuda", True)
    assert large.method.r == 32
    assert large.training_args.per_device_train_batch_size == 8
    assert large.training_args.gradient_accumulation_steps == 1
    assert large.training_args.mixed_precision == "bf16"
    apple = example("scenarios", "apple_silicon")
    assert (apple.hardware.device, apple.hardware.precision.use_fp16) == ("mps", False)
    assert apple.training_args.per_device_train_batch_size == 2
    assert apple.training_args.gradient_accumulation_steps == 2


def test_an_old_recipe_keeps_its_values_and_says_what_has_no_effect() -> None:
    strategy = example("everything", "clinic")
    assert strategy.base_model.id == "meta-llama/Llama-3.2-3B-Instruct"
    assert strategy.training_args.mixed_precision == "no"
    assert strategy.training_args.max_seq_length is None
    assert strategy.export.quantization == "q4_0"
    assert strategy.on_nonfinite == "skip"
    assert {notice.path for notice in strategy.notices} == {
        "use_case_mapping",
        "clinic.components.ollama",
        "clinic.components.fine_tuner.config.base_model.device_map",
        "clinic.components.fine_tuner.config.framework.use_fast_tokenizer",
        "clinic.components.fine_tuner.config.training_args.max_length",
        "clinic.components.converter.config.quantization",
        "clinic.data_preprocessing.augmentation",
        "clinic.conversion.auto_install_llama_cpp",
    }


def test_loading_a_strategy_imports_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from llamafarm.strategy import dump, json_schema, keys_reference, loader\n"
        f"loader.load_strategy(Path({str(EXAMPLES / 'quick_start.yaml')!r}), None, environ={{}})\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
