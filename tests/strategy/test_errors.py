"""What is said about a strategy with many faults: all of them, in the file's order, with hints."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.errors import StrategyError
from llamafarm.strategy.loader import default_strategy, load_strategy
from llamafarm.strategy.overrides import Override, parse_set

from .support import GOLDEN, refuse, strategy_text


@pytest.mark.parametrize("case", ["specimen", "values", "structure", "flags"])
def test_all_faults_are_shown_at_once(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    directory = GOLDEN / case
    flags = directory / "flags.txt"
    settings = flags.read_text(encoding="utf-8").splitlines() if flags.exists() else []
    monkeypatch.chdir(directory)
    with pytest.raises(StrategyError) as refused:
        load_strategy(
            Path("strategies.yaml"),
            "my_training",
            [parse_set(setting) for setting in settings],
            environ={},
        )
    assert refused.value.exit_code == 2
    expected = (directory / "error.txt").read_text(encoding="utf-8")
    assert refused.value.render() + "\n" == expected


def test_a_fault_in_a_list_shows_the_list(tmp_path: Path) -> None:
    shown = refuse(tmp_path, strategy_text({"method": {"layers_to_transform": [1, "x"]}})).render()
    assert 'expected a list of integers >= 0 (got [1, "x"])' in shown


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", True, "expected a number >= 0 (got true)"),
        ("max_steps", "yes", 'expected an integer >= 1 (got "yes")'),
        ("max_steps", 0, "expected an integer >= 1 (got 0)"),
        ("eval_on_start", 1, "expected true or false (got 1)"),
        ("save_total_limit", 1.5, "expected an integer >= 1 (got 1.5)"),
        ("run_name", ["a"], 'expected text (got ["a"])'),
        ("report_to", "all", "none, tensorboard, wandb, mlflow, trackio (got"),
        ("warmup_ratio", 1.5, "expected a number >= 0 and < 1 (got 1.5)"),
        ("learning_rate", "2e-4e", 'got "2e-4e"'),
        ("max_seq_length", 4, "expected an integer >= 8 (got 4)"),
    ],
)
def test_a_wrong_value_is_answered_by_what_is_allowed(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    error = refuse(tmp_path, strategy_text({"training_args": {name: value}}))
    assert message in error.problems[0].message


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("5-10", "write one number, such as `5`"),
        ("1e-5 to 5e-5", "write one number, such as `1e-5`"),
        (".inf", "write a finite number"),
    ],
)
def test_a_number_that_is_none_has_a_hint(tmp_path: Path, value: str, hint: str) -> None:
    text = f"""
    s:
      components:
        fine_tuner:
          config:
            training_args:
              learning_rate: {value}
    """
    assert refuse(tmp_path, text).problems[0].hint == hint


def test_a_misplaced_key_is_told_its_place(tmp_path: Path) -> None:
    error = refuse(tmp_path, strategy_text({"method": {"learning_rate": 1}}))
    expected = "its place is `components.fine_tuner.config.training_args.learning_rate`"
    assert error.problems[0].hint == expected


def test_the_sum_of_problems_does_not_repeat_one(tmp_path: Path) -> None:
    text = """
    s:
      components:
        fine_tuner:
          config:
            training_args: &args {max_stpes: 1}
            training: {<<: *args}
    """
    problems = refuse(tmp_path, text).problems
    assert len(problems) == len(set(problems))


def test_flags_without_a_file_are_checked_the_same() -> None:
    overrides = [
        Override("dataset.path", "data.jsonl", "--dataset data.jsonl"),
        Override("training_args.learning_rate", -1.0, "--learning-rate -1"),
        parse_set("nope=1"),
    ]
    with pytest.raises(StrategyError) as refused:
        default_strategy("default", overrides)
    assert refused.value.render() == (
        "error: the command line has 2 problems\n"
        "  --learning-rate -1  training_args.learning_rate\n"
        "                      expected a number >= 0 (got -1.0)\n"
        "  --set nope=1        nope\n"
        "                      unknown key"
    )
