from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.errors import StrategyError
from llamafarm.strategy.loader import load_strategy, load_strategy_file

from .support import load, messages, refuse, write

CONFIG = "{components: {fine_tuner: {type: pytorch, config: {method: {r: 4}}}}"
TOP = f"""
version: "2.0"
a: {CONFIG}, name: Title A, description: What A is for}}
b: {CONFIG}}}
"""
MAPPING = f"""
version: 2.0.0
strategies:
  a: {CONFIG}, name: Title A, description: What A is for}}
  b: {CONFIG}}}
"""
LIST = f"""
strategies:
  - {CONFIG}, name: a, description: What A is for}}
  - {CONFIG}, name: b}}
"""


@pytest.mark.parametrize("text", [TOP, MAPPING, LIST], ids=["top", "mapping", "list"])
def test_three_containers_hold_the_same_strategies(tmp_path: Path, text: str) -> None:
    file = load_strategy_file(write(tmp_path, text), environ={})
    assert [entry.id for entry in file.entries] == ["a", "b"]
    assert [entry.description for entry in file.entries] == ["What A is for", ""]
    assert all(entry.trainable and entry.backend == "pytorch" for entry in file.entries)
    assert not file.problems
    strategy = load(tmp_path, text, name="a")
    assert strategy.id == "a"
    assert strategy.method.r == 4
    assert strategy.file == tmp_path / "strategies.yaml"


def test_name_is_a_title_but_in_a_list_the_id(tmp_path: Path) -> None:
    top = load_strategy_file(write(tmp_path, TOP), environ={})
    assert [entry.title for entry in top.entries] == ["Title A", ""]
    in_list = load_strategy_file(write(tmp_path, LIST), environ={})
    assert [entry.title for entry in in_list.entries] == ["", ""]
    assert [entry.line for entry in in_list.entries] == [3, 4]


def test_titles_may_hold_variables_that_are_not_set(tmp_path: Path) -> None:
    text = """
    a: {name: "${X} and ${Y}", description: "${X}", components: {fine_tuner: null}}
    """
    entry = load_strategy_file(write(tmp_path, text), environ={"X": "x"}).entries[0]
    assert (entry.title, entry.description) == ("${X} and ${Y}", "x")


@pytest.mark.parametrize(
    "block",
    [
        "fine_tuner:",
        "fine_tuner: null",
        "fine_tuner: {}",
        "fine_tuner: {type: pytorch}",
        "fine_tuner:\n      type: pytorch\n      config:\n        # your configuration\n",
        "fine_tuner: {type: pytorch, config: null}",
    ],
)
def test_a_fine_tuner_without_config_is_all_defaults(tmp_path: Path, block: str) -> None:
    strategy = load(tmp_path, f"s:\n  components:\n    {block}\n")
    assert strategy.training_args == type(strategy.training_args)()
    assert strategy.backend == "pytorch"


def test_without_a_name_the_only_trainable_strategy_is_taken(tmp_path: Path) -> None:
    text = "chat: {components: {cloud_api: {}}}\ntuned: {components: {fine_tuner: {}}}\n"
    assert load(tmp_path, text).id == "tuned"


def test_without_a_name_several_strategies_are_listed(tmp_path: Path) -> None:
    error = refuse(tmp_path, TOP)
    assert error.hint == "name one with --strategy: a, b"


def test_an_unknown_name_is_answered_by_the_nearest(tmp_path: Path) -> None:
    text = "my_training: {components: {fine_tuner: {}}, name: A title}\nother: {components: {}}\n"
    assert refuse(tmp_path, text, name="my_trainig").hint == "did you mean `my_training`?"
    assert refuse(tmp_path, text, name="A title").hint == "did you mean `my_training`?"
    assert refuse(tmp_path, text, name="zzz").hint == "this file has: my_training, other"


def test_a_strategy_without_fine_tuner_lists_those_that_have_one(tmp_path: Path) -> None:
    text = "chat: {components: {cloud_api: {}}}\na: {components: {fine_tuner: {}}}\n"
    error = refuse(tmp_path, text, name="chat")
    assert error.problems[0].hint == "those that can: a"
    assert error.problems[0].where.endswith("strategies.yaml:1")


def test_a_misspelt_fine_tuner_is_found(tmp_path: Path) -> None:
    error = refuse(tmp_path, "s: {components: {fine_tunner: {}}}\n", name="s")
    assert error.problems[0].hint == "`fine_tunner` should be `fine_tuner`"


def test_a_misspelt_container_is_found(tmp_path: Path) -> None:
    error = refuse(tmp_path, "strategis:\n  s: {components: {fine_tuner: {}}}\n")
    assert error.hint == "did you mean `strategies`?"


def test_a_broken_neighbour_does_not_spoil_the_chosen_one(tmp_path: Path) -> None:
    text = """
    strategies:
      good: {components: {fine_tuner: {}}}
      broken: {components: {fine_tuner: {config: {r: x, r: y, nope: "${UNSET}"}}}, extends: no}
      text: only
      circle: {extends: circle}
      unsaid:
    """
    assert load(tmp_path, text, name="good").id == "good"
    assert len(refuse(tmp_path, text, name="broken").problems) == 4
    assert "a circle: circle -> circle" in refuse(tmp_path, text, name="circle").render()
    assert 'got "only"' in refuse(tmp_path, text, name="text").render()
    file = load_strategy_file(write(tmp_path, text), environ={})
    assert [e.id for e in file.entries if not e.trainable] == ["circle", "unsaid"]
    assert messages(file.problems) == ['expected a mapping with `components` (got "only")']


@pytest.mark.parametrize(
    "text",
    [
        "a: {components: {fine_tuner: {}}}\na: {components: {fine_tuner: {}}}\n",
        "strategies:\n  a: {components: {fine_tuner: }}\n  a: {components: {fine_tuner: }}\n",
        "strategies:\n  - {name: a, components: {fine_tuner: }}\n  - {name: a}\n",
    ],
)
def test_two_strategies_of_one_id_are_an_error_with_both_lines(tmp_path: Path, text: str) -> None:
    problem = refuse(tmp_path, text, name="a").problems[0]
    assert "stands twice: in line " in problem.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file holds no strategy"),
        ("# nothing\n", "the file holds no strategy"),
        ("- a\n- b\n", 'expected a mapping of strategies (got ["a", "b"])'),
        ("just text\n", 'expected a mapping of strategies (got "just text")'),
        ("strategies: 5\n", "expected a mapping or a list of strategies (got 5)"),
        ("components: {fine_tuner: {}}\n", "a strategy's name is missing above this block"),
        ('version: "1"\na: {components: {fine_tuner: {}}}\n', 'expected "2.0" (got "1")'),
        ("versoin: 2\na: {components: {fine_tuner: {}}}\n", "unknown key (got 2)"),
        ("a: {components: {fine_tuner: {}}}\nversion: 2.0\nversion: 2.0\n", "stands twice"),
        ("strategies: [{components: {fine_tuner: {}}}]\n", "needs a `name`: it is its id"),
        ("strategies: [text]\n", 'expected a mapping with `components` (got "text")'),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refuse(tmp_path, text).render()


def test_an_id_that_cannot_name_a_directory_is_refused(tmp_path: Path) -> None:
    text = '"../up": {components: {fine_tuner: {}}}\n'
    assert "holds no slash" in refuse(tmp_path, text, name="../up").render()


def test_other_blocks_of_a_file_are_answered_by_one_line_each(tmp_path: Path) -> None:
    text = """
    use_case_mapping: {chat: [s]}
    datasets: {medical: {path: x}}
    strategies: {s: {components: {fine_tuner: {}}}}
    """
    strategy = load(tmp_path, text)
    assert [notice.path for notice in strategy.notices] == ["use_case_mapping", "datasets"]


def test_a_block_with_components_beside_the_container_is_a_strategy(tmp_path: Path) -> None:
    text = "strategies: {a: {components: {fine_tuner: }}}\nb: {components: {fine_tuner: }}\n"
    file = load_strategy_file(write(tmp_path, text), environ={})
    assert [entry.id for entry in file.entries] == ["a", "b"]


def test_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="no-such\\.yaml does not exist"):
        load_strategy(tmp_path / "no-such.yaml", None, environ={})
