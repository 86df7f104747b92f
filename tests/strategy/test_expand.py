from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.strategy.expand import ExpansionError, escape, expand
from llamafarm.strategy.nodes import ScalarNode, from_plain, to_plain

from .support import load, refuse, strategy_text

ENVIRON = {"HOME_DIR": "/data", "RANK": "8", "EMPTY": ""}


def expanded(text: str) -> object:
    return to_plain(expand(ScalarNode(text), ENVIRON))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${HOME_DIR}/x", "/data/x"),
        ("${RANK}", 8),
        ("${ABSENT:-2e-4}", 2e-4),
        ("${ABSENT:-}", None),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", None),
        ("${RANK}${RANK}", 88),
        ("$HOME_DIR", "$HOME_DIR"),
        ("$${HOME_DIR}", "${HOME_DIR}"),
        ("cost: $5", "cost: $5"),
    ],
)
def test_references_are_replaced_and_the_result_is_read_as_yaml(text: str, value: object) -> None:
    assert expanded(text) == value


def test_quoted_text_stays_text() -> None:
    assert to_plain(expand(ScalarNode("${RANK}", quoted=True), ENVIRON)) == "8"


def test_lists_and_mappings_are_expanded_inside() -> None:
    node = from_plain({"a": ["${RANK}", {"b": "${HOME_DIR}"}]})
    assert to_plain(expand(node, ENVIRON)) == {"a": ["8", {"b": "/data"}]}


@pytest.mark.parametrize("text", ["${}", "${1X}", "${X:?no}", "${", "${A B}"])
def test_a_reference_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ExpansionError, match="begins no reference"):
        expanded(text)


def test_escaped_text_is_not_expanded() -> None:
    assert expanded(escape("a ${HOME_DIR} b")) == "a ${HOME_DIR} b"


def test_an_unset_variable_names_its_line(tmp_path: Path) -> None:
    text = """
    s:
      components:
        fine_tuner:
          config:
            method:
              target_modules:
                - q_proj
                - ${MODULE}
    """
    shown = refuse(tmp_path, text).render()
    assert f"{tmp_path}/strategies.yaml:9 " in shown
    assert "the environment variable MODULE is not set" in shown
    assert "export MODULE=" in shown


def test_variables_reach_numbers_and_texts(tmp_path: Path) -> None:
    text = strategy_text(
        {"method": {"r": "${RANK}"}, "training_args": {"output_dir": "${HOME_DIR}/out"}}
    )
    strategy = load(tmp_path, text, environ=ENVIRON)
    assert strategy.method.r == 8
    assert strategy.training_args.output_dir == "/data/out"


def test_blocks_that_are_not_used_need_no_variables(tmp_path: Path) -> None:
    text = """
    chat:
      components:
        cloud_api: {type: openai, config: {api_key: "${OPENAI_API_KEY}"}}
    s:
      components:
        cloud_api: {type: openai, config: {api_key: "${OPENAI_API_KEY}"}}
        fine_tuner: {type: pytorch}
    """
    assert load(tmp_path, text).id == "s"
