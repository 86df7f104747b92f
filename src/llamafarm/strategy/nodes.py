"""What a YAML text holds before anything is known about its meaning: values, and their lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

PlainScalar = None | bool | int | float | str
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_OTHER_BASE = re.compile(r"0(?:o[0-7]{1,20}|x[0-9a-fA-F]{1,15})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_SHOWN_CHARACTERS = 60


def resolve_plain(text: str) -> PlainScalar:
    """The value of an unquoted scalar, by YAML 1.2's core rules.

    `2e-4` and `1e5` are numbers; `no`, `on`, `1_000` and `5-10` are text; true and false in any
    case are the only booleans. Digits beyond what an int needs make a float.
    """
    if text in _NULL:
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One value. text: without its quotes; quoted: always text, whatever it looks like."""

    text: str
    line: int = 0
    quoted: bool = False

    @property
    def value(self) -> PlainScalar:
        """What it means when nothing is known about the key."""
        return self.text if self.quoted else resolve_plain(self.text)

    @property
    def is_null(self) -> bool:
        """Whether nothing was written, or `null`."""
        return not self.quoted and self.text in _NULL


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list. line: where it begins."""

    items: tuple[Node, ...]
    line: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping with its value. line: the key's."""

    key: str
    line: int
    value: Node


@dataclass(frozen=True, slots=True)
class DuplicateKey:
    """A key that a mapping holds twice."""

    key: str
    first_line: int
    line: int


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A mapping, in the file's order. Of duplicates the first stands in entries."""

    entries: tuple[Entry, ...]
    line: int = 0
    duplicates: tuple[DuplicateKey, ...] = ()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def get(self, key: str) -> Entry | None:
        """The entry of this key, if there is one."""
        return next((entry for entry in self.entries if entry.key == key), None)

    def keys(self) -> tuple[str, ...]:
        """All keys, in the file's order."""
        return tuple(entry.key for entry in self.entries)


Node = ScalarNode | SequenceNode | MappingNode


def to_plain(node: Node) -> Plain:
    """Dicts, lists and scalars without lines."""
    if isinstance(node, MappingNode):
        return {entry.key: to_plain(entry.value) for entry in node}
    if isinstance(node, SequenceNode):
        return [to_plain(item) for item in node.items]
    return node.value


def from_plain(value: object) -> Node:
    """A node for a value that a program made. Text counts as quoted: it stays text."""
    if isinstance(value, dict):
        entries = (Entry(str(key), 0, from_plain(item)) for key, item in value.items())
        return MappingNode(tuple(entries))
    if isinstance(value, (list, tuple)):
        return SequenceNode(tuple(from_plain(item) for item in value))
    if value is None:
        return ScalarNode("")
    if isinstance(value, bool):
        return ScalarNode("true" if value else "false")
    if isinstance(value, (int, float)):
        return ScalarNode(_number_text(value))
    return ScalarNode(str(value), quoted=True)


def shown(node: Node) -> str:
    """How a value is shown in a message: text in quotes, everything else as written."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        text = f"[{', '.join(shown(item) for item in node.items[:_SHOWN_CHARACTERS])}]"
    elif node.is_null:
        return "nothing"
    else:
        is_text = isinstance(node.value, str)
        text = json.dumps(node.text, ensure_ascii=False) if is_text else node.text
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _number_text(value: int | float) -> str:
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    return ".nan" if value != value else repr(value)
