from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from llamafarm import api
from llamafarm.cli.datasplit import SCRIPT_EXAMPLE, script
from llamafarm.cli.main import run_function
from llamafarm.data.datasplit import DEFAULT_EVAL_PERCENT, SplitResult
from llamafarm.data.report import DroppedRow
from llamafarm.data.rows import RowRef

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]

SPLIT = SplitResult(
    train_file=Path("data_train.jsonl"),
    eval_file=Path("data_eval.jsonl"),
    train_rows=1350,
    eval_rows=150,
    fraction=0.1,
    seed=42,
    dropped=(),
    warnings=("150 rows is little",),
    notices=("read as 10 %",),
)
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(api.datasplit).parameters.items()
    if name != "input_path"
}


def test_left_alone_it_has_the_defaults_of_the_api(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("datasplit", SPLIT)
    llamafarm("datasplit", "d.jsonl")
    fake.assert_called_once_with(Path("d.jsonl"), **DEFAULTS)


def test_help_names_the_share_that_is_taken_when_none_is_named(llamafarm: Run) -> None:
    text = " ".join(llamafarm("datasplit", "--help").out.split())
    assert f"Left out: {DEFAULT_EVAL_PERCENT:g}." in text


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        ("--eval-percent 15% --seed 7", {"eval_percent": 15.0, "seed": 7}),
        ("--eval-percent auto --skip-bad-rows", {"eval_percent": "auto", "skip_bad_rows": True}),
        ("--eval-percent ROBUST", {"eval_percent": "robust"}),
        ("--eval-rows 100 --test-rows 50", {"eval_rows": 100, "test_rows": 50}),
        ("--test-percent 5 --stable", {"test_percent": 5.0, "stable": True}),
        (
            "--group-by patient --stratify-by topic --output-dir out",
            {"group_by": "patient", "stratify_by": "topic", "output_dir": Path("out")},
        ),
    ],
)
def test_what_was_typed_is_passed_on(
    llamafarm: Run, fake_api: Fake, argv: str, given: dict[str, object]
) -> None:
    fake = fake_api("datasplit", SPLIT)
    assert llamafarm("datasplit", "d.jsonl", *argv.split()).code == 0
    fake.assert_called_once_with(Path("d.jsonl"), **{**DEFAULTS, **given})


def test_both_files_are_printed_and_warnings_go_to_stderr(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("datasplit", SPLIT)
    assert llamafarm("datasplit", "d.jsonl") == Done(
        0,
        "  train  1,350 rows  data_train.jsonl\n  eval   150 rows    data_eval.jsonl\n",
        "notice: read as 10 %\nwarning: 150 rows is little\n",
    )


def test_a_third_file_is_printed_too(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("datasplit", replace(SPLIT, test_file=Path("data_test.jsonl"), test_rows=75))
    assert llamafarm("datasplit", "d.jsonl").out.splitlines() == [
        "  train  1,350 rows  data_train.jsonl",
        "  eval   150 rows    data_eval.jsonl",
        "  test   75 rows     data_test.jsonl",
    ]


def test_rows_left_out_are_counted_and_the_first_are_named(llamafarm: Run, fake_api: Fake) -> None:
    dropped = tuple(DroppedRow(RowRef("d.jsonl", line), "no answer") for line in (3, 5, 8, 9))
    fake_api("datasplit", replace(SPLIT, dropped=dropped, dropped_rows=1200))
    assert llamafarm("datasplit", "d.jsonl").err.splitlines()[-1] == (
        "left out: 1,200 rows: d.jsonl:3 (no answer), d.jsonl:5 (no answer), "
        "d.jsonl:8 (no answer) and 1,197 more"
    )


def test_for_a_program_it_is_one_object(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("datasplit", SPLIT)
    done = llamafarm("datasplit", "d.jsonl", "--json")
    value = json.loads(done.out)
    assert (value["train_file"], value["train_rows"]) == ("data_train.jsonl", 1350)
    assert (value["test_file"], value["test_rows"]) == (None, 0)
    assert value["warnings"] == ["150 rows is little"]
    assert done.err == ""


_PERCENTAGE = "expected a percentage, or one of auto, robust, research"
_COUNT = "expected a whole number of at least 1"


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--eval-percent", "ten", _PERCENTAGE),
        ("--test-percent", "-5", _PERCENTAGE),
        ("--eval-rows", "0", _COUNT),
        ("--test-rows", "1.5", _COUNT),
        ("--seed", "4.2", "expected a whole number"),
    ],
)
def test_a_flag_that_cannot_be_read_says_what_is_expected(
    llamafarm: Run, flag: str, value: str, expected: str
) -> None:
    done = llamafarm("datasplit", "d.jsonl", flag, value)
    text = f'error: the command line has 1 problem\n  {flag}  {expected} (got "{value}")\n'
    assert done == Done(2, "", text)


def test_the_script_splits_as_the_command_does(
    fake_api: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = fake_api("datasplit", SPLIT)
    argv = "--input d.jsonl --eval-percent 10 --test-rows 5 --stable --group-by g --stratify-by s"
    monkeypatch.setattr("sys.argv", ["create_data_split.py", *argv.split()])
    assert run_function(script, "create_data_split.py", SCRIPT_EXAMPLE) == 0
    given = {"eval_percent": 10.0, "test_rows": 5, "group_by": "g", "stratify_by": "s"}
    fake.assert_called_once_with(Path("d.jsonl"), **{**DEFAULTS, **given, "stable": True})
    assert "data_eval.jsonl" in capsys.readouterr().out


def test_the_script_has_the_flags_of_the_command() -> None:
    from llamafarm.cli.datasplit import command

    ours, theirs = (inspect.signature(function).parameters for function in (script, command))
    assert list(ours) == list(theirs)
    for name in list(ours)[1:]:
        assert (ours[name].default, ours[name].annotation) == (
            theirs[name].default,
            theirs[name].annotation,
        )


def test_a_file_is_split_in_three(llamafarm: Run, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) for n in range(50)]
    path.write_text("\n".join(rows), "utf-8")
    done = llamafarm("datasplit", str(path), "--eval-rows", "7", "--test-percent", "20")
    assert done.code == 0
    counts = [
        len((tmp_path / f"data_{side}.jsonl").read_text("utf-8").splitlines())
        for side in ("train", "eval", "test")
    ]
    assert counts == [33, 7, 10]
