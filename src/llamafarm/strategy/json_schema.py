"""JSON Schema (2020-12) of a strategy file, made of the model and the key table, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamafarm.strategy.containers import TOP_KEYS, VERSIONS
from llamafarm.strategy.fields import FieldSpec, Schema, find_spec, value_schema
from llamafarm.strategy.keys import ASKED, FILE_SIBLINGS, Key, KeyTree, key_tree

_NULL: Schema = {"type": "null"}
_REFERENCE: Schema = {"type": "string", "pattern": r"\$\{", "description": "${VAR}, expanded"}
_HAS_FINE_TUNER: Schema = {
    "required": ["components"],
    "properties": {"components": {"type": "object", "required": ["fine_tuner"]}},
}


def strategy_file_schema() -> dict[str, Any]:
    """What a strategy file may hold, in any of its three containers, aliases included."""
    tree = key_tree()
    strategy = {"$ref": "#/$defs/strategy"}
    in_list = {"allOf": [strategy, {"type": "object", "required": ["name"]}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llamafarm strategy file",
        "description": "A key per strategy, or a mapping or list of them under `strategies`.",
        "type": "object",
        "properties": {
            "version": {"enum": [*VERSIONS, 2], "description": "Version of the file's form."},
            "strategies": {
                "anyOf": [
                    {"type": "object", "additionalProperties": strategy},
                    {"type": "array", "items": in_list},
                ]
            },
            **{name: {"description": "Has no effect here."} for name in sorted(FILE_SIBLINGS)},
        },
        "if": {"required": ["strategies"]},
        "else": {
            "properties": dict.fromkeys(sorted(TOP_KEYS), True),
            "additionalProperties": strategy,
        },
        "$defs": {
            "strategy": _strategy(tree),
            "trainable": _block(tree, ""),
            **_definitions(tree),
        },
    }


def _strategy(tree: KeyTree) -> dict[str, Any]:
    """Strict where it can be trained or extends another; anything may stand in a neighbour."""
    return {
        "type": ["object", "null"],
        "properties": dict.fromkeys(tree.children, True),
        "if": {"anyOf": [_HAS_FINE_TUNER, {"required": ["extends"]}]},
        "then": {"$ref": "#/$defs/trainable"},
    }


def _block(tree: KeyTree, path: str) -> dict[str, Any]:
    others: Any = False
    if tree.any_name is not None:
        others = _key(tree.any_name, f"{path}.*")
    return {
        "type": ["object", "null"],
        "properties": {
            name: _key(child, f"{path}.{name}".lstrip(".")) for name, child in tree.children.items()
        },
        "additionalProperties": others,
    }


def _key(tree: KeyTree, path: str) -> dict[str, Any]:
    """A key's values, a block below it, or both."""
    row = next((row for row in tree.rows if not row.beside), None)
    has_block = bool(tree.children) or tree.any_name is not None
    if row is None:
        return _block(tree, path)
    if row.status == "notice":
        return {"description": f"Has no effect: {row.text}."}
    if row.status == "structure":
        return {"type": ["string", "null"], "description": row.text}
    value = {"$ref": f"#/$defs/{_definition_name(row)}"}
    return {"anyOf": [value, _block(tree, path)]} if has_block else value


def _definitions(tree: KeyTree) -> dict[str, Any]:
    rows = [row for row in tree.walk() if row.status in ("obeyed", "refused")]
    return {_definition_name(row): _definition(row) for row in rows}


def _definition_name(row: Key) -> str:
    """Keys of one meaning and one conversion share their definition."""
    own = find_spec(row.target) is not None and row.name == row.target.rsplit(".", 1)[-1]
    return row.target if own else f"{row.target or 'refused'}:{row.name}"


def _definition(row: Key) -> dict[str, Any]:
    if row.conversion is not None and row.conversion.schema:
        written = row.conversion.schema
    else:
        written = value_schema(row.target)
    spec = find_spec(row.target)
    choices = [_tolerant(written), _NULL, _REFERENCE]
    definition: dict[str, Any] = {"anyOf": choices, "description": _description(row, spec)}
    same_form = spec is not None and row.target == spec.path and row.name == spec.name
    if same_form and spec is not None and spec.default not in (None, "", (), {}):
        definition["default"] = spec.default
    return definition


def _description(row: Key, spec: FieldSpec | None) -> str:
    if row.target.startswith(ASKED):
        return "Decides training_args.mixed_precision together with its counterpart."
    if spec is None or row.target != spec.path:
        return row.text or (spec.description if spec else "")
    if row.name == spec.name:
        return spec.description
    return f"Another way to write {spec.path}: {spec.description}"


def _tolerant(schema: Schema) -> Any:
    """What the loader takes for this schema: names of truth values, one item for a list, numbers
    where a text is wanted.
    """
    if "enum" in schema:
        choices = list(schema["enum"])
        return {"enum": [*choices, False] if "no" in choices else choices}
    if "anyOf" in schema:
        has_number = any(part.get("type") == "number" for part in schema["anyOf"])
        return {"anyOf": [p if has_number else _tolerant(p) for p in schema["anyOf"]]}
    kind = schema.get("type")
    if kind == "boolean":
        return {"enum": [True, False, "yes", "no", "on", "off"]}
    if kind == "array" and "items" in schema:
        item = _tolerant(schema["items"])
        return {"anyOf": [{"type": "array", "items": item}, item]}
    if kind == "string" and "pattern" not in schema:
        return {"type": ["string", "number", "boolean"]}
    return dict(schema) if isinstance(schema, Mapping) else schema
