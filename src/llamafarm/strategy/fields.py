"""The fields of `Strategy` as data: for each dotted path its JSON Schema, default and description.

Everything that speaks about fields reads it from here: coercion, messages, JSON Schema, reference.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from llamafarm.strategy.model import Section, Strategy

Schema = Mapping[str, Any]

_NOT_WRITTEN = frozenset({"id", "file", "origins", "notices"})
_JSON_TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_BOUNDS: tuple[tuple[type, str, str], ...] = (
    (Ge, "ge", "minimum"),
    (Gt, "gt", "exclusiveMinimum"),
    (Le, "le", "maximum"),
    (Lt, "lt", "exclusiveMaximum"),
)


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One value of a strategy. schema: JSON Schema of its values, without null for "left out".

    section: the model class that holds the field `name`; default None: planning decides.
    """

    path: str
    name: str
    section: type[Section]
    schema: Schema
    default: object
    description: str
    nullable: bool = field(default=False)

    @property
    def is_mapping(self) -> bool:
        """Whether its keys are the user's own (`dataset.columns`)."""
        return self.schema.get("type") == "object"


@cache
def field_specs() -> Mapping[str, FieldSpec]:
    """Every field of a strategy by its dotted path, in the order of the model."""
    return types.MappingProxyType({spec.path: spec for spec in _walk(Strategy, "")})


def find_spec(path: str) -> FieldSpec | None:
    """The field of this path, or the mapping field it lies in; None if there is neither."""
    specs = field_specs()
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        spec = specs.get(".".join(parts[:length]))
        if spec is not None and (length == len(parts) or spec.is_mapping):
            return spec
    return None


def value_schema(path: str) -> Schema:
    """JSON Schema of the value at this path, which may lie inside a mapping field."""
    spec = find_spec(path)
    if spec is None:
        raise KeyError(path)
    if spec.path == path:
        return spec.schema
    inner = spec.schema.get("additionalProperties")
    return inner if isinstance(inner, dict) else {}


def section_description(section: type[Section]) -> str:
    """First line of the class's docstring, without the name of the block."""
    first = (section.__doc__ or "").strip().splitlines()[0]
    return first.split(": ", 1)[-1]


def _walk(section: type[Section], prefix: str) -> Iterator[FieldSpec]:
    for name, info in section.model_fields.items():
        path = prefix + name
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _walk(annotation, path + ".")
        elif path not in _NOT_WRITTEN:
            yield _spec(path, name, section, info)


def _spec(path: str, name: str, section: type[Section], info: FieldInfo) -> FieldSpec:
    schema, nullable = _annotation_schema(info.annotation)
    return FieldSpec(
        path=path,
        name=name,
        section=section,
        schema={**schema, **_bounds(info.metadata)},
        default=info.get_default(call_default_factory=True),
        description=info.description or "",
        nullable=nullable,
    )


def _annotation_schema(annotation: Any) -> tuple[dict[str, Any], bool]:
    """JSON Schema of a type, and whether it allows None."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        parts = [_annotation_schema(a)[0] for a in arguments if a is not type(None)]
        schema = parts[0] if len(parts) == 1 else {"anyOf": parts}
        return schema, type(None) in arguments
    if origin is Annotated:
        inner, nullable = _annotation_schema(arguments[0])
        metadata = [m for a in arguments[1:] for m in getattr(a, "metadata", [a])]
        return {**inner, **_bounds(metadata)}, nullable
    if origin is Literal:
        return {"enum": list(arguments)}, False
    if origin is tuple:
        return {"type": "array", "items": _annotation_schema(arguments[0])[0]}, False
    if origin is not None and issubclass(origin, Mapping):
        inner, _ = _annotation_schema(arguments[1])
        return {"type": "object", "additionalProperties": inner or True}, False
    return ({"type": _JSON_TYPES[annotation]} if annotation in _JSON_TYPES else {}), False


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    bounds = {
        keyword: getattr(item, attribute)
        for item in metadata
        for kind, attribute, keyword in _BOUNDS
        if isinstance(item, kind)
    }
    patterns = [item.pattern for item in metadata if getattr(item, "pattern", None)]
    return {**bounds, **({"pattern": patterns[0]} if patterns else {})}
