"""SECURITY.md names tests for what it promises: they exist. And the promises that are about the
whole program.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamafarm.errors import StrategyError
from llamafarm.strategy.keys import keys
from llamafarm.strategy.loader import default_strategy
from llamafarm.strategy.overrides import parse_set

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXT)))
PROMISES = [line for line in TEXT.split("## Who may")[0].splitlines() if line.startswith("- ")]


def _sources() -> Iterator[tuple[Path, ast.AST]]:
    for file in sorted((ROOT / "src").rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_a_test() -> None:
    assert len(PROMISES) > 12
    assert not [line for line in PROMISES if "::test_" not in line]


def test_nothing_in_the_program_reads_a_pickle() -> None:
    for file, tree in _sources():
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            unsafe = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
            assert not unsafe & {name.split(".")[0] for name in names}, file
        for call in _calls(tree):
            text = ast.unparse(call.func)
            assert text not in ("torch.load", "torch.jit.load", "pandas.read_pickle"), file
            assert not any(k.arg == "allow_pickle" for k in call.keywords), file


def test_remote_code_cannot_be_switched_on() -> None:
    for file, tree in _sources():
        for call in _calls(tree):
            for keyword in call.keywords:
                if keyword.arg == "trust_remote_code":
                    assert ast.unparse(keyword.value) == "False", file
    assert all(key.status != "obeyed" for key in keys() if "trust_remote_code" in key.path)
    try:
        strategy = default_strategy("s", [parse_set("trust_remote_code=true")])
    except StrategyError as refused:
        assert "trust_remote_code" in refused.render()
    else:
        assert strategy == default_strategy("s").model_copy(update={"notices": strategy.notices})
        assert strategy.notices


@pytest.mark.parametrize("prefix", ["", "native.", "components.fine_tuner.config.native."])
def test_no_flag_passes_remote_code_on_to_another_engine(prefix: str) -> None:
    asked = ("components.fine_tuner.type=llamafactory", f"{prefix}trust_remote_code=true")
    with pytest.raises(StrategyError, match="a model's own code is never run"):
        default_strategy("s", [parse_set(text) for text in asked])


def test_no_command_goes_through_a_shell() -> None:
    for file, tree in _sources():
        for call in _calls(tree):
            assert ast.unparse(call.func) not in ("os.system", "os.popen", "eval", "exec"), file
            assert not any(keyword.arg == "shell" for keyword in call.keywords), file
