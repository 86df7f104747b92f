"""From a node to the value of a field, or to what was expected instead."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from llamafarm.strategy.fields import Schema, find_spec, value_schema
from llamafarm.strategy.model import Strategy
from llamafarm.strategy.nodes import (
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    resolve_plain,
    shown,
    to_plain,
)

_YES = frozenset({"true", "yes", "on"})
_NO = frozenset({"false", "no", "off"})
_RANGE = re.compile(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(?:-|–|to)\s*[0-9.]+(?:e-?[0-9]+)?\s*")
_EXACT_IN_FLOAT = 2**53


class BadValueError(Exception):
    """A value that its key does not take. expected: what it takes; node: what was written."""

    def __init__(self, expected: str, node: Node, hint: str = "") -> None:
        super().__init__(expected)
        self.message = f"expected {expected} (got {shown(node)})"
        self.hint = hint


def read_value(path: str, node: Node) -> object:
    """The value of the field at a dotted path, checked by the model. Raises BadValueError."""
    spec = find_spec(path)
    schema = value_schema(path)
    text = expected(schema, spec.description if spec else "")
    try:
        value = coerce(schema, node)
    except ValueError:
        raise BadValueError(text, node, suggest(schema, node)) from None
    return checked(path, value, node)


def checked(path: str, value: object, node: Node) -> object:
    """The value as the model holds it. node: what was written, for the message of BadValueError."""
    spec = find_spec(path)
    if spec is None:
        raise KeyError(path)
    key = path.removeprefix(spec.path).lstrip(".")
    required = {"id": "checked"} if spec.section is Strategy else {}
    try:
        section = spec.section.model_validate(
            {**required, spec.name: {key: value} if key else value}
        )
    except ValidationError:
        schema = value_schema(path)
        raise BadValueError(
            expected(schema, spec.description), node, suggest(schema, node)
        ) from None
    held = getattr(section, spec.name)
    return held[key] if key else held


def coerce(schema: Schema, node: Node) -> object:
    """The value that a node stands for, as the schema tells. Raises ValueError if it is none."""
    if "enum" in schema:
        return _choice(schema["enum"], node)
    if "anyOf" in schema:
        return _first_of(schema["anyOf"], node)
    kind = schema.get("type")
    if kind is None:
        return to_plain(node)
    if kind == "array":
        items = node.items if isinstance(node, SequenceNode) else (node,)
        return tuple(coerce(schema["items"], item) for item in items)
    if kind == "object":
        if not isinstance(node, MappingNode):
            raise ValueError(kind)
        return {e.key: coerce(schema["additionalProperties"], e.value) for e in node}
    if not isinstance(node, ScalarNode) or node.is_null:
        raise ValueError(kind)
    return _scalar(kind, node)


def expected(schema: Schema, description: str = "") -> str:
    """What a key takes, as it stands in messages and in the reference."""
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    if "pattern" in schema:
        return description.rstrip(".")
    if "anyOf" in schema:
        return " or ".join(expected(part) for part in schema["anyOf"])
    kind = schema.get("type")
    if kind == "array":
        return _expected_list(schema["items"])
    if kind in ("integer", "number"):
        noun = "an integer" if kind == "integer" else "a number"
        return " ".join([noun, *_bounds(schema)])
    return {"boolean": "true or false", "string": "text", "object": "a mapping"}.get(
        str(kind), "a value"
    )


def suggest(schema: Schema, node: Node) -> str:
    """What was probably meant; empty when nothing comes close."""
    if isinstance(node, SequenceNode) and "items" in schema:
        hints = (suggest(schema["items"], item) for item in node.items)
        return next((hint for hint in hints if hint), "")
    if not isinstance(node, ScalarNode):
        return ""
    choices = schema.get("enum") or schema.get("items", {}).get("enum") or ()
    if node.text in choices:
        return ""
    close = nearest(node.text, [str(choice) for choice in choices])
    if close:
        return did_you_mean(close)
    a_range = _RANGE.fullmatch(node.text)
    if a_range:
        return f"write one number, such as `{a_range[1]}`"
    endless = isinstance(node.value, float) and not math.isfinite(node.value)
    return "write a finite number" if endless else ""


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Candidates that a word may be a misspelling of, best first, whatever their case."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word[:100].lower(), list(by_lower), n=3, cutoff=cutoff)
    return [by_lower[match] for match in close]


def did_you_mean(candidates: Sequence[str]) -> str:
    """The hint that offers the nearest name."""
    return f"did you mean `{candidates[0]}`?"


def _choice(choices: Sequence[str], node: Node) -> str:
    """What YAML reads as false is "no" where "no" can be chosen."""
    if isinstance(node, ScalarNode):
        if node.text in choices:
            return node.text
        if node.text.lower() in _NO and "no" in choices:
            return "no"
    raise ValueError


def _first_of(schemas: Sequence[Schema], node: Node) -> object:
    """The most special reading that fits: a truth value, then a number, then text, then a list."""
    order = {"boolean": 0, "integer": 1, "number": 2, "string": 3, "array": 4}
    beside_text = any(schema.get("type") == "string" for schema in schemas)
    for schema in sorted(schemas, key=lambda schema: order.get(str(schema.get("type")), 5)):
        if beside_text and isinstance(node, ScalarNode) and not _reads_as(schema, node):
            continue
        try:
            return coerce(schema, node)
        except ValueError:
            continue
    raise ValueError


def _reads_as(schema: Schema, node: ScalarNode) -> bool:
    """Beside text, only what YAML itself reads as a number or truth value counts as one."""
    kind, value = schema.get("type"), node.value
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("integer", "number"):
        wanted = int if kind == "integer" else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool)
    return kind == "string"


def _scalar(kind: str, node: ScalarNode) -> object:
    """Quoted numbers count as numbers: that is how `"${RANK}"` reads after its expansion."""
    if kind == "string":
        return node.text
    value = resolve_plain(node.text.strip())
    if kind == "boolean":
        word = node.text.strip().lower()
        if word in _YES or word in _NO:
            return word in _YES
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind == "number":
            return value
        if isinstance(value, int) or (value.is_integer() and abs(value) < _EXACT_IN_FLOAT):
            return int(value)
    raise ValueError(kind)


def _expected_list(items: Schema) -> str:
    if "enum" in items:
        return "a list of " + ", ".join(str(choice) for choice in items["enum"])
    if items.get("type") == "integer":
        return " ".join(["a list of integers", *_bounds(items)])
    return "a list of texts"


def _bounds(schema: Schema) -> list[str]:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    parts = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return [" and ".join(parts)] if parts else []
