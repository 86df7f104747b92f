"""A strategy back to a file: the canonical form, with what was set and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import yaml

from llamafarm.redact import secret_variables
from llamafarm.strategy.containers import TOP_KEYS
from llamafarm.strategy.expand import escape
from llamafarm.strategy.fields import find_spec
from llamafarm.strategy.loader import put
from llamafarm.strategy.model import Strategy
from llamafarm.strategy.nodes import resolve_plain

VERSION = "2.0"
_IN_CONFIG = ("base_model", "method", "hardware", "training_args", "native")
_IN_PLACE = frozenset({"id", "title", "description", "backend", "file", "origins", "notices"})
# Passed on as it is: null means something there, below the first key.
_AS_WRITTEN = frozenset({"native", "distributed"})
_LINE_WIDTH = 100
# What YAML takes for the end of a line besides the usual one: only an escape brings it back.
_BREAKS = frozenset("\r\x85\u2028\u2029")


def to_yaml(strategy: Strategy, *, environ: Mapping[str, str] = os.environ) -> str:
    """A strategy file that loads as an equal strategy (apart from origins, notices and file).

    Only keys that were set are written: by a file, by a flag, or by with_values. The value of a
    secret variable of the environment is written as a reference to it.
    """
    set_values = strategy.model_dump(exclude_unset=True, exclude={"file", "origins", "notices"})
    secrets = secret_variables(environ)
    values = _plain(set_values, secrets)
    for name in _AS_WRITTEN & set_values.keys():
        values[name] = {
            key: _plain(value, secrets, keep_null=True)
            for key, value in set_values[name].items()
            if value is not None
        }
    config = {name: values[name] for name in _IN_CONFIG if values.get(name)}
    model_id = config.get("base_model", {}).pop("id", None)
    if model_id is not None:
        config["base_model"] = {"huggingface_id": model_id, **config["base_model"]}
    block: dict[str, Any] = {}
    if values.get("title"):
        block["name"] = values["title"]
    if values.get("description"):
        block["description"] = values["description"]
    fine_tuner = {"type": strategy.backend, **({"config": config} if config else {})}
    block["components"] = {"fine_tuner": fine_tuner}
    for name, value in values.items():
        if name not in _IN_PLACE and name not in _IN_CONFIG and value not in ({}, []):
            block[name] = value
    document = {"version": VERSION, **_contained(strategy.id, block)}
    return yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_LINE_WIDTH
    )


def with_values(strategy: Strategy, values: Mapping[str, object]) -> Strategy:
    """The strategy with these canonical paths set; origins, notices and file stay.

    Raises KeyError for a path that is no field, and pydantic's ValidationError for a value that the
    field does not hold: both are defects of the caller.
    """
    nested = strategy.model_dump(exclude_unset=True)
    for path, value in values.items():
        if find_spec(path) is None:
            raise KeyError(path)
        put(nested, path, value)
    return Strategy.model_validate(nested)


def _contained(strategy_id: str, block: dict[str, Any]) -> dict[str, Any]:
    """A key of the file; below `strategies` where the id means something else at the top."""
    named = {strategy_id: block}
    return {"strategies": named} if strategy_id in TOP_KEYS else named


def _plain(value: Any, secrets: Mapping[str, str], *, keep_null: bool = False) -> Any:
    """Without what is null, which means left out; tuples as lists; texts safe from expansion."""
    if isinstance(value, Mapping):
        return {
            key: _plain(item, secrets, keep_null=keep_null)
            for key, item in value.items()
            if keep_null or item is not None
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item, secrets, keep_null=keep_null) for item in value]
    return _without_secrets(escape(value), secrets) if isinstance(value, str) else value


def _without_secrets(text: str, secrets: Mapping[str, str]) -> str:
    for name, secret in secrets.items():
        text = text.replace(escape(secret), f"${{{name}}}")
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes what yaml_reader would not read as text: its rules are not PyYAML's."""

    def ignore_aliases(self, data: Any) -> bool:
        """Every value is written out."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if _BREAKS & set(text):
        style = '"'
    elif "\n" in text and not text[0].isspace():
        style = "|"
    elif "\n" in text or not isinstance(resolve_plain(text), str):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    in_one_line = not any(isinstance(item, (list, dict)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=in_one_line)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
