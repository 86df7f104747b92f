"""How a comparison of the two fine-tuners is asked for and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY, Mock

import pytest

from llamafarm.api import BackendComparison
from llamafarm.errors import RunError
from llamafarm.training.backends.llamafactory.compare import Compared

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]

GOLDEN = Path(__file__).parents[1] / "golden" / "cli"
ALIKE = (
    Compared("training tokens", "412 rows, 40,112", "412 rows, 40,112", same=True),
    Compared(
        "training labels",
        "2,000 rows, 200,000",
        "2,000 rows, 200,000",
        same=True,
        note="the first 2,000 of 5,000 rows",
    ),
    Compared("rows in a step", "8", "8", same=True),
    Compared("loss before step 1", "2.123456", "2.123457", same=True, note="difference 1.0e-06"),
)
OTHER = (
    Compared("steps", "208", "207", same=False),
    Compared(
        "evaluation tokens",
        "46 rows, 4,600",
        "46 rows, 4,600",
        same=False,
        note="1 different row: data.jsonl:3",
    ),
)
SAME = BackendComparison("my_training", "0.9.5", ALIKE)
DIFFERENT = BackendComparison("my_training", "0.9.5", (*ALIKE[:3], *OTHER))


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


def test_fine_tuners_that_would_train_the_same_are_a_success(
    llamafarm: Run, fake_api: Fake
) -> None:
    fake = fake_api("compare_backends", SAME)
    done = llamafarm("compare-backends", "my_training")
    assert done == Done(0, golden("compare_backends_same.txt"), "")
    fake.assert_called_once_with("my_training", None, overrides=(), sinks=ANY)


def test_fine_tuners_that_differ_are_refused_with_what_differs(
    llamafarm: Run, fake_api: Fake
) -> None:
    fake_api("compare_backends", DIFFERENT)
    done = llamafarm("compare-backends", "my_training")
    assert done == Done(
        3,
        golden("compare_backends_different.txt"),
        "error: the fine-tuners differ in 2 things: steps, evaluation tokens\n",
    )


@pytest.mark.parametrize(("found", "code"), [(SAME, 0), (DIFFERENT, 3)])
def test_for_a_program_it_is_one_object_with_the_same_exit_code(
    llamafarm: Run, fake_api: Fake, found: BackendComparison, code: int
) -> None:
    fake_api("compare_backends", found)
    done = llamafarm("compare-backends", "my_training", "--json")
    assert (done.code, done.err) == (code, "")
    value = json.loads(done.out)
    assert (value["strategy"], value["version"]) == ("my_training", "0.9.5")
    assert [row["same"] for row in value["rows"]] == [row.same for row in found.rows]


def test_what_was_typed_is_passed_on(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("compare_backends", SAME)
    argv = "--strategy-file s.yaml --dataset rows.jsonl --set method.r=4"
    assert llamafarm("compare-backends", "quick", *argv.split()).code == 0
    assert fake.call_args.args == ("quick", Path("s.yaml"))
    overrides = {o.path: o.value for o in fake.call_args.kwargs["overrides"]}
    assert overrides == {"dataset.path": "rows.jsonl", "method.r": 4}


def test_a_file_of_one_strategy_needs_no_name(
    llamafarm: Run, fake_api: Fake, tmp_path: Path
) -> None:
    fake = fake_api("compare_backends", SAME)
    file = tmp_path / "strategy.yaml"
    file.write_text("s: {}\n")
    llamafarm("compare-backends", str(file))
    fake.assert_called_once_with(None, file, overrides=(), sinks=ANY)


def test_a_fine_tuner_that_fails_is_no_difference(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("compare_backends", RunError("LLaMA-Factory was ended by SIGKILL"))
    assert llamafarm("compare-backends", "s") == Done(
        1, "", "error: LLaMA-Factory was ended by SIGKILL\n"
    )
