"""A plan in LLaMA-Factory's words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamafarm.planning.llamafactory import PASSED_ON
from llamafarm.planning.plan import TrainingPlan
from llamafarm.strategy.model import Method, Quantization, Strategy
from llamafarm.training.backends.llamafactory.translate import arguments_of, dataset_info
from llamafarm.training.backends.llamafactory.workplace import arguments_text
from tests.hardware.recorded import A10
from tests.planning.building import LLAMA_1B, plan_for

from .golden_arguments import FILES, GOLDEN, plans, write

PLANS = plans()
FIELDS = Path(__file__).parents[3] / "planning" / "llamafactory-0.9.5-fields.json"
# As YAML 1.2 reads a plain number (its core schema).
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def arguments(name: str) -> dict[str, Any]:
    plan, has_eval, resume = PLANS[name]
    return arguments_of(plan, has_eval=has_eval, resume_from=resume)


def lora() -> TrainingPlan:
    return plan_for(Strategy(id="s", backend="llamafactory"))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", PLANS)
def test_the_files_are_those_that_were_kept(name: str, file: str, tmp_path: Path) -> None:
    write(tmp_path, *PLANS[name])
    kept = (GOLDEN / name / file).read_text(encoding="utf-8")
    assert (tmp_path / file).read_text(encoding="utf-8") == kept


def test_no_kept_file_is_without_its_plan() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == set(PLANS)


@pytest.mark.parametrize("name", PLANS)
def test_every_argument_is_one_that_llamafactory_has(name: str) -> None:
    assert set(arguments(name)) <= set(json.loads(FIELDS.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", PLANS)
def test_what_is_passed_on_never_takes_the_place_of_what_is_translated(name: str) -> None:
    plan = PLANS[name][0]
    assert plan.llamafactory is not None
    translated = set(arguments(name)) - set(plan.llamafactory.native)
    assert not translated & PASSED_ON
    assert arguments(name).items() >= plan.llamafactory.native.items()


@pytest.mark.parametrize("name", PLANS)
def test_the_text_reads_back_as_what_was_written(name: str) -> None:
    assert yaml.safe_load(arguments_text(arguments(name))) == arguments(name)


@pytest.mark.parametrize("value", [1e-5, 5e-05, 2e-4, 1e-8, 1.0, 1e16, 0.1 + 0.2])
def test_a_number_is_a_number_for_every_parser(value: float) -> None:
    text = arguments_text({"learning_rate": value})
    assert yaml.safe_load(text) == {"learning_rate": value}  # YAML 1.1
    plain = text.removeprefix("learning_rate: ").strip()
    assert _NUMBER.fullmatch(plain) and float(plain) == value  # YAML 1.2
    assert "." in plain


@pytest.mark.parametrize("value", ["no", "on", "1e-5", "5E3", "0x1F", "0o17", "1_000", "null", "~"])
def test_a_text_that_looks_like_something_else_is_quoted(value: str) -> None:
    text = arguments_text({"key": value})
    assert text.strip() in (f"key: '{value}'", f'key: "{value}"')


def test_a_tuple_is_a_list() -> None:
    written = arguments_text({"extra": {"names": ("a", "b")}})
    assert yaml.safe_load(written) == {"extra": {"names": ["a", "b"]}}


def test_a_start_from_the_beginning_names_no_checkpoint() -> None:
    assert "resume_from_checkpoint" not in arguments_of(lora(), has_eval=True)
    found = arguments_of(lora(), has_eval=True, resume_from="resume/checkpoint-3")
    assert found["resume_from_checkpoint"] == "resume/checkpoint-3"


def test_without_evaluation_rows_there_is_one_side() -> None:
    assert "eval_dataset" not in arguments_of(lora(), has_eval=False)
    assert list(dataset_info(lora(), has_eval=False)) == ["train"]
    assert list(dataset_info(lora(), has_eval=True)) == ["train", "eval"]


def test_eight_bits_have_no_settings_of_four_bits() -> None:
    method = Method(type="qlora", quantization=Quantization(load_in_4bit=False, load_in_8bit=True))
    plan = plan_for(Strategy(id="s", backend="llamafactory", method=method), A10, LLAMA_1B)
    found = arguments_of(plan, has_eval=True)
    assert found["quantization_bit"] == 8
    assert not {"quantization_type", "double_quantization"} & found.keys()


def test_a_plan_of_the_other_fine_tuner_is_a_defect() -> None:
    with pytest.raises(ValueError, match="another fine-tuner"):
        arguments_of(plan_for(Strategy(id="s")), has_eval=True)
