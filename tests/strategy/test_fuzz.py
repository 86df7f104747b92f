"""Whatever stands in a file: a Strategy, or a StrategyError; nothing else ever comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamafarm.errors import StrategyError
from llamafarm.strategy.keys import keys
from llamafarm.strategy.loader import load_strategy, load_strategy_file
from llamafarm.strategy.overrides import parse_set

NAMES = sorted({part for key in keys() for part in key.path.split(".") if part != "*"})
SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["no", "steps", "${X}", "${", "$${", "5-10", "2e-4", "all-linear", "bf16", "s"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)


def try_load(directory: Path, text: str | bytes, *sets: str) -> None:
    path = directory / "fuzz.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    for name in (None, "s"):
        try:
            overrides = [parse_set(setting) for setting in sets]
            load_strategy(path, name, overrides, environ={"X": "x"})
            load_strategy_file(path, environ={})
        except StrategyError as error:
            assert error.render()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([key for key in keys() if key.status != "structure"]), VALUES)
def test_any_value_at_any_key(directory: Path, key: Any, value: object) -> None:
    strategy: dict[str, Any] = {
        "components": {"fine_tuner": {"type": key.backend or "pytorch", "config": {}}}
    }
    block = strategy
    *parents, last = key.path.replace("*", "own").split(".")
    for parent in parents:
        block = block.setdefault(parent, {})
    block[last] = value
    try_load(directory, yaml.safe_dump({"s": strategy}, allow_unicode=True))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_any_tree(directory: Path, value: object) -> None:
    try_load(directory, yaml.safe_dump(value, allow_unicode=True))
    try_load(directory, yaml.safe_dump({"strategies": value}, allow_unicode=True))
    fine_tuner = {"components": {"fine_tuner": {"config": value}}}
    try_load(directory, yaml.safe_dump({"s": fine_tuner}, allow_unicode=True))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text("{}[]:-,&*!|>'\"#%@`\n \tab1<", max_size=40))
def test_any_text(directory: Path, text: str) -> None:
    try_load(directory, text)
    try_load(directory, f"s:\n  components:\n    fine_tuner: {text}\n")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(directory: Path, data: bytes) -> None:
    try_load(directory, data)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES) | st.text(max_size=10), st.text(max_size=20))
def test_any_setting(directory: Path, path: str, value: str) -> None:
    try_load(directory, "s: {components: {fine_tuner: {}}}", f"{path}={value}")
