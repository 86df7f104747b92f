"""Every value of a strategy, with where it came from."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llamafarm.decision import Decision
from llamafarm.strategy.model import Strategy

# Shown in place of a value.
LEFT_OUT = "-"
_NOT_VALUES = {"id", "title", "description", "file", "origins", "notices"}


def describe_values(strategy: Strategy) -> tuple[Decision, ...]:
    """One line per key, in the order of the model; what somebody wrote carries its file:line or
    flag.
    """
    return tuple(
        _describe(strategy, path, field, value)
        for path, field, value in _leaves("", strategy)
        if path.split(".")[0] not in _NOT_VALUES
    )


def _leaves(prefix: str, section: BaseModel) -> Iterator[tuple[str, FieldInfo, object]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        path = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _leaves(path + ".", value)
        else:
            yield path, field, value


def _describe(strategy: Strategy, path: str, field: FieldInfo, value: object) -> Decision:
    origin = strategy.origin(path)
    if origin is not None:
        return Decision(path, _text(value), origin.kind, origin.describe())
    if value is None:
        _, _, left_out = (field.description or "").partition("Left out: ")
        return Decision(
            path, LEFT_OUT, "default", f"left out: {left_out}" if left_out else "left out"
        )
    return Decision(path, _text(value), "default", "")


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(v) for v in value) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "-"
