from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llamafarm.strategy.json_schema import strategy_file_schema
from llamafarm.strategy.nodes import to_plain
from llamafarm.strategy.yaml_reader import parse_yaml, read_yaml

from .support import EXAMPLES, GOLDEN


@cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(strategy_file_schema())


def faults(document: object) -> list[str]:
    return [error.message for error in validator().iter_errors(document)]


def document(path: Path) -> object:
    node = read_yaml(path)
    assert node is not None
    return to_plain(node)


def test_the_schema_is_a_schema() -> None:
    schema = strategy_file_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_valid(path: Path) -> None:
    assert faults(document(path)) == []


@pytest.mark.parametrize("case", ["specimen", "values", "structure", "flags"])
def test_what_the_loader_refuses_is_invalid(case: str) -> None:
    assert faults(document(GOLDEN / case / "strategies.yaml"))


def config(**values: Any) -> dict[str, Any]:
    return {"s": {"components": {"fine_tuner": {"type": "pytorch", "config": values}}}}


@pytest.mark.parametrize(
    "wrong",
    [
        config(training_args={"num_train_epoch": 3}),
        config(training_args={"eval_strategy": "step"}),
        config(training_args={"learning_rate": -1}),
        config(training_args={"max_steps": 1.5}),
        config(method={"r": "8x"}),
        config(method={"type": "adapters"}),
        config(base_model={"trust_remote_code": True}),
        config(hardware={"device": "gpu"}),
        config(dataset={"eval_split": 10}),
        config(dataset={"columns": ["question"]}),
        {"s": {"components": {"fine_tuner": {"type": "custom"}}}},
        {"s": {"components": {"fine_tuner": {}}, "training_args": {}}},
        {"strategies": [{"components": {"fine_tuner": {}}}]},
        {"version": "1", "s": {"components": {"fine_tuner": {}}}},
        ["a list"],
    ],
    ids=str,
)
def test_a_wrong_file_is_invalid(wrong: object) -> None:
    assert faults(wrong)


@pytest.mark.parametrize(
    "right",
    [
        config(training_args={"eval_strategy": False, "eval_on_start": "no"}),
        config(training_args={"report_to": "none", "run_name": 2024}),
        config(method={"r": "${RANK:-8}", "alpha": None}),
        config(dataset={"columns": {"question": "q"}}),
        {"chat": {"components": {"cloud_api": {}}, "monitoring": {"track_latency": True}}},
        {"version": "2.0", "s": None},
        {"strategies": {"s": {"components": {"fine_tuner": None}}}},
    ],
    ids=str,
)
def test_what_the_loader_accepts_is_valid(right: object) -> None:
    assert faults(right) == []


def test_editors_see_descriptions_and_defaults() -> None:
    definitions = strategy_file_schema()["$defs"]
    assert definitions["training_args.learning_rate"]["description"].startswith("Peak learning")
    assert definitions["method.dropout"]["default"] == 0.05
    assert "default" not in definitions["method.r"]
    trainable = definitions["trainable"]["properties"]
    config_block = trainable["components"]["properties"]["fine_tuner"]["properties"]["config"]
    assert "max_seq_length" in config_block["properties"]["training_args"]["properties"]
    assert "cutoff_len" in config_block["properties"]["training_args"]["properties"]


def test_numbers_as_yaml_writes_them_are_numbers() -> None:
    text = "s: {components: {fine_tuner: {config: {training_args: {learning_rate: 2e-4}}}}}"
    node = parse_yaml(text, "f.yaml")
    assert node is not None
    assert faults(to_plain(node)) == []
