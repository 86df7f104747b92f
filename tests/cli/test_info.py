"""`info`: what is asked of the API, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY, Mock

from llamafarm import api
from llamafarm.decision import Decision
from llamafarm.errors import Problem
from llamafarm.strategy.overrides import Override

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]
RATE = Decision("learning_rate", "5e-05", "strategy", "s.yaml:10")
WARNING = Decision("learning_rate", "5e-05", "warning", "too low")
FOUND = api.StrategyInfo(
    "quick",
    "A quick one",
    "Takes a minute.",
    (RATE,),
    ("`x` is ignored",),
    Path("s.yaml"),
    (Problem("there is no file r.jsonl", "s.yaml:20", "dataset.path", "did you mean rr.jsonl?"),),
)


def test_info_shows_values_with_their_origin_and_what_is_not_known(
    llamafarm: Run, fake_api: Fake
) -> None:
    fake = fake_api("info", FOUND)
    done = llamafarm("info", "quick")
    assert done.out == (
        "quick: A quick one\nTakes a minute.\ns.yaml\n\n"
        "  learning_rate  5e-05  strategy  s.yaml:10\n\n"
        "  not known  s.yaml:20 dataset.path: there is no file r.jsonl "
        "(hint: did you mean rr.jsonl?)\n"
    )
    assert done.err == "notice: `x` is ignored\n"
    fake.assert_called_once_with("quick", None, overrides=(), resolved=True, sinks=ANY)


def test_info_for_a_program_is_one_object(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("info", FOUND)
    value = json.loads(llamafarm("info", "quick", "--json").out)
    assert value["decisions"][0]["source"] == "strategy"
    assert value["unknown"][0]["where"] == "s.yaml:20"


def test_info_decides_for_other_rows_and_another_model(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("info", FOUND)
    argv = ("--strategy-file", "s.yaml", "--dataset", "o.jsonl", "--base-model", "m")
    llamafarm("info", "quick", *argv, "--no-resolve")
    overrides = (
        Override("dataset.path", "o.jsonl", "--dataset o.jsonl"),
        Override("base_model.id", "m", "--base-model m"),
    )
    fake.assert_called_once_with(
        "quick", Path("s.yaml"), overrides=overrides, resolved=False, sinks=ANY
    )


def test_one_field_is_shown_in_lines(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("info", api.StrategyInfo("quick", "", "", (RATE, WARNING), ()))
    done = llamafarm("info", "quick", "--field", "learning_rate")
    assert done.out == (
        "  field     training_args.learning_rate\n"
        "  value     5e-05\n"
        "  origin    strategy\n"
        "  reason    s.yaml:10\n"
        "  warning   too low\n"
        "  meaning   Peak learning rate; 0 trains nothing.\n"
        "  allowed   a number >= 0\n"
        "  left out  by data size and model size\n"
        "  table     under 100: 1e-05 to 5e-05\n"
        "            100-1000: 5e-05 to 0.0001\n"
        "            1000-10000: 0.0001 to 0.0002\n"
        "            over 10000: 0.0002 to 0.0005\n"
        "            below 1B: up to 20 times that, at most 0.001\n"
    )


def test_one_field_for_a_program(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("info", FOUND)
    value = json.loads(llamafarm("info", "quick", "--field", "method.r", "--json").out)
    assert (value["path"], value["decision"]) == ("method.r", None)
    assert value["table"][0] == ["1B", "4 to 8"]


def test_an_unknown_field_names_the_nearest(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("info", FOUND)
    done = llamafarm("info", "quick", "--field", "learning_rat")
    assert done.code == 2
    assert "did you mean `training_args.learning_rate`?" in done.err
