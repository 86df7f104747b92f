"""`recommend` and `init`: what is asked of the API, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY, Mock

import pytest

from llamafarm import api
from llamafarm.decision import Decision
from llamafarm.planning.recommended import OpenField
from llamafarm.strategy.overrides import Override
from tests.hardware.recorded import LAPTOP

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]
MADE = api.Recommendation(
    text="mine:\n  r: 4  # table: why\n",
    strategy="mine",
    file=None,
    decisions=(
        Decision("method.r", "4", "table", "why"),
        Decision("dataset", "", "warning", "few rows"),
    ),
    open=(OpenField("dataset.path", "a file of rows"),),
    hardware=LAPTOP,
)


def asked(fake: Mock) -> api.RecommendRequest:
    request = fake.call_args.args[0]
    assert isinstance(request, api.RecommendRequest)
    return request


def test_recommend_prints_the_file_and_warns_beside_it(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("recommend", MADE)
    done = llamafarm("recommend", "--dataset", "rows.jsonl", "--base-model", "m")
    assert done == Done(0, MADE.text, "warning: few rows\n")
    fake.assert_called_once_with(
        api.RecommendRequest(
            overrides=(
                Override("dataset.path", "rows.jsonl", "--dataset rows.jsonl"),
                Override("base_model.id", "m", "--base-model m"),
            )
        ),
        sinks=ANY,
    )


@pytest.mark.parametrize(
    ("use", "share"), [("standard", 0.1), ("robust", 0.15), ("research", 0.2), ("very-small", 0.05)]
)
def test_a_use_is_its_row_of_the_split_table(
    llamafarm: Run, fake_api: Fake, use: str, share: float
) -> None:
    fake = fake_api("recommend", MADE)
    assert llamafarm("recommend", "--use", use).code == 0
    assert asked(fake).overrides == (Override("dataset.eval_split", share, f"--use {use}"),)


def test_an_unknown_use_names_the_nearest(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("recommend", MADE)
    done = llamafarm("recommend", "--use", "robus")
    assert done.code == 2
    assert "expected one of very-small, standard, robust, research" in done.err
    assert "did you mean `robust`?" in done.err


def test_recommend_into_a_file_says_where_it_is(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("recommend", replace(MADE, file=Path("my file.yaml")))
    done = llamafarm("recommend", "--output", "my file.yaml", "--overwrite", "--name", "mine")
    assert done.out == (
        "written: my file.yaml\nnext: llamafarm setup 'my file.yaml' --verify-only\n"
    )
    request = asked(fake)
    assert (request.file, request.overwrite, request.name) == (Path("my file.yaml"), True, "mine")


def test_overwrite_without_a_file_is_refused(llamafarm: Run) -> None:
    done = llamafarm("recommend", "--overwrite")
    assert done.code == 2
    assert "--overwrite  only works together with --output" in done.err


@pytest.mark.parametrize("command", ["recommend", "init"])
def test_for_a_program_it_is_one_object(llamafarm: Run, fake_api: Fake, command: str) -> None:
    fake_api("recommend", MADE)
    done = llamafarm(command, "--json")
    value = json.loads(done.out)
    assert done.err == ""
    assert value["text"] == MADE.text
    assert value["decisions"][0] == {
        "field": "method.r",
        "value": "4",
        "source": "table",
        "reason": "why",
    }
    assert value["open"][0]["path"] == "dataset.path"
    assert (value["forecast"], value["data"], value["warnings"]) == (None, None, ["few rows"])


def test_init_writes_for_beginners_and_for_the_demo_s_rows(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("recommend", replace(MADE, file=Path("strategy.yaml")))
    done = llamafarm("init")
    assert done.out.startswith("written: strategy.yaml\n")
    request = asked(fake)
    assert (request.file, request.name) == (Path("strategy.yaml"), "my_strategy")
    assert (request.for_beginners, request.overwrite) == (True, False)
    (rows,) = request.overrides
    assert (rows.path, rows.value) == ("dataset.path", "medical_qa.jsonl")


def test_init_takes_rows_and_a_place(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("recommend", replace(MADE, file=Path("mine.yaml")))
    argv = ("mine.yaml", "--dataset", "r.jsonl", "--eval-dataset", "e.jsonl", "--skip-bad-rows")
    assert llamafarm("init", *argv).code == 0
    request = asked(fake)
    assert (request.file, request.skip_bad_rows) == (Path("mine.yaml"), True)
    assert [o.value for o in request.overrides] == ["r.jsonl", "e.jsonl"]
