from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from llamafarm.strategy.dump import to_yaml, with_values
from llamafarm.strategy.loader import default_strategy, load_strategy, load_strategy_file
from llamafarm.strategy.model import Strategy
from llamafarm.strategy.overrides import parse_set

from .support import EXAMPLES, write

APART = {"origins", "notices", "file"}


def reload(directory: Path, strategy: Strategy) -> Strategy:
    path = write(directory, to_yaml(strategy), "again.yaml")
    return load_strategy(path, strategy.id, environ={})


def same(one: Strategy, other: Strategy) -> bool:
    return one.model_dump(exclude=APART) == other.model_dump(exclude=APART)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_written_strategy_loads_as_the_same(tmp_path: Path, path: Path) -> None:
    for entry in load_strategy_file(path, environ={}).entries:
        if entry.trainable:
            strategy = load_strategy(path, entry.id, environ={})
            again = reload(tmp_path, strategy)
            assert same(strategy, again)
            assert not again.notices


def test_only_what_was_set_is_written() -> None:
    strategy = default_strategy("mine", [parse_set("r=4"), parse_set("dataset=d.jsonl")])
    assert to_yaml(strategy) == (
        'version: "2.0"\n'
        "mine:\n"
        "  components:\n"
        "    fine_tuner:\n"
        "      type: pytorch\n"
        "      config:\n"
        "        method:\n"
        "          r: 4\n"
        "  dataset:\n"
        "    path: d.jsonl\n"
    )


def test_values_of_a_program_are_written_too(tmp_path: Path) -> None:
    strategy = default_strategy("mine", [parse_set("r=4")])
    resolved = with_values(
        strategy,
        {
            "training_args.learning_rate": 2e-4,
            "training_args.seed": 42,
            "method.target_modules": ("q_proj", "v_proj"),
            "base_model.id": "org/model",
            "dataset.columns.question": "q",
            "title": "2e-4",
        },
    )
    assert resolved.training_args.learning_rate == 2e-4
    assert resolved.origin("method.r") == strategy.origin("method.r")
    assert resolved.origin("training_args.seed") is None
    assert strategy.training_args.learning_rate is None
    again = reload(tmp_path, resolved)
    assert same(resolved, again)
    assert again.origin("training_args.seed") is not None


def test_a_value_set_to_none_is_left_out(tmp_path: Path) -> None:
    strategy = with_values(default_strategy("mine", [parse_set("r=4")]), {"method.r": None})
    assert "r:" not in to_yaml(strategy).replace("fine_tuner:", "")
    assert reload(tmp_path, strategy).method.r is None


def test_a_value_that_no_field_holds_is_a_defect_of_the_caller() -> None:
    strategy = default_strategy("mine")
    with pytest.raises(KeyError):
        with_values(strategy, {"method.rank": 4})
    with pytest.raises(ValidationError):
        with_values(strategy, {"method.r": 0})


@pytest.mark.parametrize(
    "strategy_id", ["version", "strategies", "components", "2024", "no", "a b"]
)
def test_any_id_is_written_so_that_it_is_read(tmp_path: Path, strategy_id: str) -> None:
    strategy = default_strategy(strategy_id, [parse_set("r=4")])
    again = reload(tmp_path, strategy)
    assert (again.id, again.method.r) == (strategy_id, 4)


TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn")) | st.sampled_from("\n\t\r\x85\u2028\u2029")
)


@example("a\u2028\x85", "")
@given(TEXTS, st.sampled_from(["", "2e-4", "no", "null", "${X}", "$${X}", "[a", "a: b", "- x"]))
def test_every_text_survives(
    tmp_path_factory: pytest.TempPathFactory, text: str, special: str
) -> None:
    directory = tmp_path_factory.mktemp("dump")
    values = {
        "prompt_template.system": text + special,
        "training_args.run_name": special + text,
        "prompt_template.stop_sequences": (text, special),
        "dataset.columns": {"question": special},
    }
    strategy = with_values(default_strategy("mine"), values)
    path = directory / "again.yaml"
    path.write_text(to_yaml(strategy), encoding="utf-8", newline="")
    assert same(strategy, load_strategy(path, None, environ={}))


def test_what_is_written_is_yaml_for_other_readers(tmp_path: Path) -> None:
    strategy = load_strategy(EXAMPLES / "everything.yaml", "clinic", environ={})
    document = yaml.safe_load(to_yaml(strategy))
    config = document["clinic"]["components"]["fine_tuner"]["config"]
    assert config["training_args"]["learning_rate"] == 5e-5
    assert config["training_args"]["mixed_precision"] == "no"


def test_a_secret_of_the_environment_is_written_as_a_reference(tmp_path: Path) -> None:
    environ = {"HUB_TOKEN": "hf_0123456789abcdef0123", "PLACE": "somewhere"}
    text = "s: {components: {fine_tuner: {config: {base_model: '${PLACE}/${HUB_TOKEN}'}}}}"
    strategy = load_strategy(write(tmp_path, text), "s", environ=environ)
    assert strategy.base_model.id == "somewhere/hf_0123456789abcdef0123"
    written = to_yaml(strategy, environ=environ)
    assert "huggingface_id: somewhere/${HUB_TOKEN}" in written
    path = write(tmp_path, written, "again.yaml")
    assert same(strategy, load_strategy(path, "s", environ=environ))


def test_null_inside_what_is_passed_on_stays(tmp_path: Path) -> None:
    text = (
        "s: {components: {fine_tuner: {type: llamafactory, config: "
        "{native: {eval_dataset: {a: null, b: [null]}}}}}}"
    )
    strategy = load_strategy(write(tmp_path, text), "s", environ={})
    assert strategy.native["eval_dataset"] == {"a": None, "b": [None]}
    assert same(strategy, reload(tmp_path, strategy))
