from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.errors import StrategyError
from llamafarm.strategy.loader import default_strategy, load_strategy
from llamafarm.strategy.overrides import Override, parse_set

from .support import load, messages, refuse, strategy_text, value_at, write

TEXT = strategy_text(
    {
        "base_model": {"huggingface_id": "org/model", "revision": "v1"},
        "method": {"type": "lora", "r": 8},
        "training_args": {"max_steps": 20, "bf16": True, "learning_rate": 1e-4},
        "hardware": {"precision": {"cuda": {"use_fp16": True}}},
        "dataset": {"path": "config.jsonl"},
    },
    beside={"dataset": {"train_file": "t.jsonl", "eval_file": "e.jsonl"}},
)


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("training_args.max_steps=5", "training_args.max_steps", 5),
        ("max_steps=5", "training_args.max_steps", 5),
        ("r=4", "method.r", 4),
        ("method.r=4", "method.r", 4),
        ("lora_r=4", "method.r", 4),
        ("components.fine_tuner.config.method.r=4", "method.r", 4),
        ("type=qlora", "method.type", "qlora"),
        ("learning_rate=2e-4", "training_args.learning_rate", 2e-4),
        ("warmup_ratio=0.1", "training_args.warmup_steps", 0.1),
        ("target_modules=[q_proj, v_proj]", "method.target_modules", ("q_proj", "v_proj")),
        ("target_modules=q_proj,v_proj", "method.target_modules", ("q_proj", "v_proj")),
        ("dataset.columns.question=frage", "dataset.columns.question", "frage"),
        ("columns.question=frage", "dataset.columns.question", "frage"),
        ("hardware.precision.cuda.use_tf32=no", "hardware.precision.cuda.use_tf32", False),
        ("cuda.use_tf32=yes", "hardware.precision.cuda.use_tf32", True),
        ("device=cpu", "hardware.device", "cpu"),
        ("seed=7", "training_args.seed", 7),
        ("eval_percent=20", "dataset.eval_split", 0.2),
        ("eval_percent=15%", "dataset.eval_split", 0.15),
        ("eval_percent=0.5%", "dataset.eval_split", 0.005),
        ("eval_percent=0.5", "dataset.eval_split", 0.5),
        ("eval_percent=robust", "dataset.eval_split", 0.15),
        ("eval_percent=auto", "dataset.eval_split", "auto"),
        ("dataset.columns={question: frage}", "dataset.columns.question", "frage"),
        ("columns={question: frage}", "dataset.columns", {"question": "frage"}),
        ("dataset.mix={b.jsonl: 2}", "dataset.mix", {"b.jsonl": 2.0}),
        ("run_name=1e5", "training_args.run_name", "1e5"),
        ("output_dir=", "training_args.output_dir", None),
        ("max_steps=null", "training_args.max_steps", None),
        ("name=Another title", "title", "Another title"),
        ("base_model=org/other", "base_model.id", "org/other"),
        ("distributed.strategy=fsdp2", "distributed.strategy", "fsdp2"),
        ("export.ollama_parameters.num_ctx=4096", "export.ollama_parameters.num_ctx", 4096),
    ],
)
def test_a_setting_takes_whole_and_short_paths(
    tmp_path: Path, setting: str, path: str, value: object
) -> None:
    strategy = load(tmp_path, TEXT, setting)
    assert value_at(strategy, path) == value


def test_a_flag_wins_over_the_file_and_is_its_origin(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    flag = Override("training_args.learning_rate", 1e-3, "--learning-rate 1e-3")
    strategy = load_strategy(path, None, [flag], environ={})
    assert strategy.training_args.learning_rate == 1e-3
    origin = strategy.origin("training_args.learning_rate")
    assert origin is not None
    assert (origin.kind, origin.describe()) == ("flag", "--learning-rate 1e-3")
    assert not strategy.notices or all("learning" not in n.message for n in strategy.notices)


def test_of_two_flags_the_later_one_wins(tmp_path: Path) -> None:
    assert load(tmp_path, TEXT, "r=2", "lora_r=3").method.r == 3
    assert load(tmp_path, TEXT, "lora_r=3", "r=2").method.r == 2


def test_a_flag_displaces_what_the_file_says_another_way(tmp_path: Path) -> None:
    strategy = load(tmp_path, TEXT, "dataset=all.jsonl", "num_train_epochs=1", "base_model=org/b")
    assert strategy.dataset.path == "all.jsonl"
    assert strategy.dataset.train_file is strategy.dataset.eval_file is None
    assert strategy.training_args.max_steps is None
    assert strategy.base_model.revision is None
    said = [m for m in messages(strategy.notices) if "takes the place of" in m]
    assert (
        "--set num_train_epochs=1 takes the place of training_args.max_steps: 20 (line 13)" in said
    )
    assert len(said) == 4


def test_a_nearer_source_of_rows_takes_the_place_of_a_mixture(tmp_path: Path) -> None:
    mixed = strategy_text({}, beside={"dataset": {"mix": {"a.jsonl": 1, "b.jsonl": 2}}})
    strategy = load(tmp_path, mixed, "dataset.dataset_name=org/rows")
    assert (strategy.dataset.mix, strategy.dataset.dataset_name) == ({}, "org/rows")
    named = strategy_text({}, beside={"dataset": {"train_file": "t.jsonl"}})
    strategy = load(tmp_path, named, "dataset.mix={a.jsonl: 1}")
    assert (strategy.dataset.mix, strategy.dataset.train_file) == ({"a.jsonl": 1.0}, None)


def test_a_nearer_size_of_the_split_takes_the_place_of_another(tmp_path: Path) -> None:
    counted = strategy_text({}, beside={"dataset": {"path": "d.jsonl", "eval_rows": 4}})
    strategy = load(tmp_path, counted, "dataset.eval_percent=20")
    assert (strategy.dataset.eval_rows, strategy.dataset.eval_split) == (None, 0.2)


def test_a_training_file_as_a_flag_keeps_the_evaluation_file(tmp_path: Path) -> None:
    strategy = load(tmp_path, TEXT, "dataset.train_file=new.jsonl")
    assert strategy.dataset.train_file == "new.jsonl"
    assert strategy.dataset.eval_file == "e.jsonl"
    assert strategy.dataset.path is None


@pytest.mark.parametrize("setting", ["fp16=true", "training_args.mixed_precision=fp16"])
def test_a_precision_flag_wins_over_every_spelling_of_the_file(
    tmp_path: Path, setting: str
) -> None:
    assert load(tmp_path, TEXT, setting).training_args.mixed_precision == "fp16"


def test_a_precision_switch_as_a_flag_wins_over_training_args(tmp_path: Path) -> None:
    strategy = load(tmp_path, TEXT, "hardware.precision.cuda.use_bf16=true")
    assert strategy.hardware.precision.cuda.use_bf16
    assert strategy.hardware.precision.cuda.use_fp16 is None
    assert strategy.training_args.mixed_precision is None


def test_an_ambiguous_path_lists_what_it_may_mean(tmp_path: Path) -> None:
    problem = refuse(tmp_path, TEXT, "format=text").problems[0]
    assert problem.where == "--set format=text"
    assert problem.message == "`format` may mean 2 keys: dataset.format, prompt_template.format"


def test_an_unknown_path_is_answered_by_the_nearest(tmp_path: Path) -> None:
    problem = refuse(tmp_path, TEXT, "training_args.max_stpes=1").problems[0]
    assert problem.hint == "did you mean `training_args.max_steps`?"


def test_a_flag_without_effect_says_so(tmp_path: Path) -> None:
    strategy = load(tmp_path, TEXT, "training_args.group_by_length=true")
    notice = next(n for n in strategy.notices if "group_by_length" in n.message)
    assert notice.where == "--set training_args.group_by_length=true"


def test_variables_in_flags_are_left_to_the_shell(tmp_path: Path) -> None:
    strategy = load(tmp_path, TEXT, "run_name=${HOME}", environ={"HOME": "/h"})
    assert strategy.training_args.run_name == "${HOME}"


@pytest.mark.parametrize("setting", ["max_steps", "=5", " =5"])
def test_a_setting_needs_a_path_and_an_equals_sign(setting: str) -> None:
    with pytest.raises(StrategyError, match="expected path=value"):
        parse_set(setting)


def test_parse_set_reads_yaml_values() -> None:
    assert parse_set("a.b=[1, x, 2e-4]").value == [1, "x", 2e-4]
    assert parse_set("a=no").value == "no"
    assert parse_set("a=").value is None
    assert parse_set(" a = 5").path == "a"
    assert parse_set("a=b=c").value == "b=c"
    assert parse_set("a=5").text == "--set a=5"


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(StrategyError) as refused:
        parse_set("target_modules=[q_proj, v_proj")
    (problem,) = refused.value.problems
    assert problem.where == "--set target_modules=[q_proj, v_proj"
    assert "is not closed" in problem.message


def test_the_backend_can_be_chosen_by_a_flag(tmp_path: Path) -> None:
    strategy = load(tmp_path, TEXT, "backend=llamafactory", "stage=sft")
    assert strategy.backend == "llamafactory"
    assert strategy.native == {"stage": "sft"}


def test_a_default_strategy_holds_only_its_flags() -> None:
    strategy = default_strategy("default", [parse_set("dataset=d.jsonl"), parse_set("r=4")])
    assert (strategy.id, strategy.file) == ("default", None)
    assert set(strategy.origins) == {"dataset.path", "method.r"}
    assert default_strategy("default").training_args == type(strategy.training_args)()


def test_a_secret_in_a_flag_is_not_repeated() -> None:
    override = parse_set("dataset.path=hf_0123456789abcdef0123")
    assert override.value == "hf_0123456789abcdef0123"
    assert override.text == "--set dataset.path=hf_***"
