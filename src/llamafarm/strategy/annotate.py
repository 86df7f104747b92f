"""Comments for a strategy file: who decided each value and why, and what a block is for."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llamafarm.strategy.nodes import MappingNode, Node, ScalarNode
from llamafarm.strategy.yaml_reader import parse_yaml

_WIDTH = 100
_CONFIG = "components.fine_tuner.config."
_CONTAINER = "strategies"
_VERSION = "version"
_WHOLE_NUMBER = re.compile(r"-?\d+\.0")


@dataclass(frozen=True, slots=True)
class Comment:
    """Texts for one key, each of one line or more.

    above: before it; beside: behind its value, or above it where the line has no room; below: at
    the end of its block.
    """

    above: tuple[str, ...] = ()
    beside: str = ""
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """A key of the file. line: of the key, last_line: of the end of its value; both 1-based."""

    path: str
    line: int
    last_line: int
    value: Node


@dataclass(slots=True)
class _Lines:
    """The file while it grows. above and below: new lines by the number of an old one."""

    text: list[str]
    above: dict[int, list[str]] = field(default_factory=dict)
    below: dict[int, list[str]] = field(default_factory=dict)

    def joined(self, head: Sequence[str]) -> str:
        lines = [line for text in head for line in _wrapped(text, "")]
        for number, line in enumerate(self.text, start=1):
            lines += [*self.above.get(number, ()), line, *self.below.get(number, ())]
        return "\n".join(lines) + "\n"


def annotate(text: str, comments: Mapping[str, Comment], head: Sequence[str] = ()) -> str:
    """A file of one strategy, as `dump.to_yaml` writes it, with comments.

    comments: by canonical path (`method.r`; `method` for the block, empty for the strategy);
    head: lines for the top. Control characters in comments are spelt out, so that none of them can
    end its line. Whole numbers lose their `.0`.
    """
    lines = _Lines(text.rstrip("\n").split("\n"))
    for place in _places(parse_yaml(text, "the strategy"), len(lines.text)):
        comment = comments.get(place.path, Comment())
        indent = _indent(lines.text[place.line - 1])
        above = [line for part in comment.above for line in _wrapped(part, indent)]
        is_block = isinstance(place.value, MappingNode)
        if not is_block:
            above += _beside(lines, place, comment.beside, indent)
        lines.above[place.line] = above
        inner = indent + "  " if is_block else indent
        below = [line for part in comment.below for line in _wrapped(part, inner)]
        # Of two blocks that end in one line the inner one comes later.
        lines.below[place.last_line] = below + lines.below.get(place.last_line, [])
    return lines.joined(head)


def one_line(text: str) -> str:
    """Without line breaks and control characters, which would end a comment."""
    spaced = "".join(" " if c.isspace() else c for c in text).strip()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in spaced)


def _beside(lines: _Lines, place: _Place, comment: str, indent: str) -> list[str]:
    """Put it behind the value; where it does not fit, give the lines for above."""
    index = place.line - 1
    node = place.value
    if isinstance(node, ScalarNode) and not node.quoted and _WHOLE_NUMBER.fullmatch(node.text):
        lines.text[index] = lines.text[index].removesuffix(".0")
    if not comment:
        return []
    whole = f"{lines.text[index]}  # {one_line(comment)}"
    if place.line == place.last_line and len(whole) <= _WIDTH:
        lines.text[index] = whole
        return []
    return _wrapped(comment, indent)


def _wrapped(text: str, indent: str) -> list[str]:
    """As comment lines; what a text is indented by stays."""
    shown = one_line(text)
    lead = text[: len(text) - len(text.lstrip(" "))]
    return textwrap.wrap(
        shown,
        _WIDTH,
        initial_indent=f"{indent}# {lead}",
        subsequent_indent=f"{indent}# {lead * 2}",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [f"{indent}#"]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]


def _places(root: Node | None, last_line: int) -> Iterator[_Place]:
    """Every key below the strategy, and the strategy itself; outer ones first."""
    if not isinstance(root, MappingNode):
        return
    container = root.get(_CONTAINER)
    block = container.value if container is not None else root
    if not isinstance(block, MappingNode):
        return
    for entry in block:
        # Inside the container it is a strategy's name.
        is_version = block is root and entry.key == _VERSION
        if not is_version and isinstance(entry.value, MappingNode):
            yield _Place("", entry.line, last_line, entry.value)
            yield from _below(entry.value, "", last_line)


def _below(block: MappingNode, prefix: str, last_line: int) -> Iterator[_Place]:
    ends = [entry.line - 1 for entry in block.entries[1:]] + [last_line]
    for entry, end in zip(block.entries, ends, strict=True):
        path = f"{prefix}{entry.key}"
        yield _Place(_canonical(path), entry.line, end, entry.value)
        if isinstance(entry.value, MappingNode):
            yield from _below(entry.value, f"{path}.", end)


def _canonical(path: str) -> str:
    """The path in the model of a key of the canonical form."""
    if path == "components.fine_tuner.type":
        return "backend"
    inner = path.removeprefix(_CONFIG)
    return "base_model.id" if inner == "base_model.huggingface_id" else inner
