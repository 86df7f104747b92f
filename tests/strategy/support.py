"""Strategy files for tests: text in, Strategy or error out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamafarm.errors import StrategyError
from llamafarm.strategy.loader import load_strategy
from llamafarm.strategy.model import Strategy
from llamafarm.strategy.overrides import parse_set

GOLDEN = Path(__file__).parents[1] / "golden" / "strategy"
EXAMPLES = Path(__file__).parent / "examples"


def write(directory: Path, text: str, name: str = "strategies.yaml") -> Path:
    path = directory / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def load(
    directory: Path,
    text: str,
    *settings: str,
    name: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Strategy:
    path = write(directory, text)
    return load_strategy(path, name, [parse_set(s) for s in settings], environ=environ or {})


def refuse(
    directory: Path,
    text: str,
    *settings: str,
    name: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> StrategyError:
    with pytest.raises(StrategyError) as refused:
        load(directory, text, *settings, name=name, environ=environ)
    return refused.value


def strategy_text(
    config: object = None, *, backend: str = "pytorch", beside: Mapping[str, Any] | None = None
) -> str:
    """A file with one strategy `s`: its `config`, and blocks beside `components`."""
    components: dict[str, Any] = {"fine_tuner": {"type": backend, "config": config}}
    block = {"components": components, **(beside or {})}
    components.update(block.pop("more_components", {}))
    return yaml.safe_dump({"s": block}, sort_keys=False)


def value_at(strategy: Strategy, path: str) -> object:
    """The value at a canonical path; below a mapping field the rest is one key."""
    value: object = strategy
    parts = path.split(".")
    for number, part in enumerate(parts):
        if isinstance(value, Mapping):
            return value[".".join(parts[number:])]
        value = getattr(value, part)
    return value


def messages(items: Sequence[Any]) -> list[str]:
    return [item.message for item in items]
