"""YAML text to a tree of nodes, each with its line: YAML 1.2's scalars, no tags, nothing executed.

PyYAML supplies the events; the tree is built here, because its constructors lose the lines, read
`1e-5` as text and `no` as False, and let the last of two equal keys win in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from llamafarm.errors import Problem, StrategyError
from llamafarm.strategy.nodes import (
    DuplicateKey,
    Entry,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
)

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_ALIASES = 100
MAX_NODES = 20_000
MAX_KEY_CHARACTERS = 1_000
_SHOWN_CHARACTERS = 60
_MERGE_KEY = "<<"
_Opening = yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent
# What YAML forbids everywhere; libyaml and PyYAML word it differently, so it is found before them.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"
)
# Escapes can make them too.
_SURROGATE = re.compile("[\ud800-\udfff]")
_BEYOND = re.compile(r"\\U(?!00(?:0|10))[0-9A-Fa-f]{8}")
_NO_ESCAPE = (
    "a `\\` stands before what is no escape of YAML",
    "write `\\\\`, or put the text in single quotes",
)


def read_yaml(path: Path) -> Node | None:
    """The tree of a YAML file; None when it holds nothing.

    Raises StrategyError if it cannot be read, is not UTF-8, is larger than MAX_BYTES, or is not the
    YAML that is accepted here.
    """
    data = _read_bytes(path)
    if len(data) > MAX_BYTES:
        raise _refuse(path, 1, f"larger than {MAX_BYTES:,} bytes ({len(data):,})")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
        raise _refuse(path, line, message, "save the file as UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Node | None:
    """The tree of a YAML text; None when it holds nothing. name: the file, for messages.

    Raises StrategyError with `name:line` on a syntax error, a tag, a second document, nesting
    beyond MAX_DEPTH, and aliases that would expand beyond MAX_ALIASES or MAX_NODES.
    """
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        line = text.count("\n", 0, forbidden.start()) + 1
        raise _refuse(name, line, f"a control character stands here (U+{ord(forbidden[0]):04X})")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _TreeBuilder(name).document(yaml.parse(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, name) from error
    except (ValueError, OverflowError) as error:
        # PyYAML's own parser, of an escape beyond the last character there is.
        before = _BEYOND.search(text)
        line = text.count("\n", 0, before.start()) + 1 if before else 1
        raise _refuse(name, line, *_NO_ESCAPE) from error


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise StrategyError(
            f"{path} does not exist", hint=f"files are looked up from {Path.cwd()}"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StrategyError(f"{path} cannot be read: {reason}") from error


def _refuse(name: Path | str, line: int, message: str, hint: str = "") -> StrategyError:
    problem = Problem(message, where=f"{name}:{line}", hint=hint)
    return StrategyError(f"{name} cannot be read as YAML", [problem])


@dataclass(slots=True)
class _Built:
    """A node with what it costs: height of its tree, number of nodes with aliases expanded."""

    node: Node
    height: int = 1
    size: int = 1


@dataclass(slots=True)
class _TreeBuilder:
    """Builds the tree from PyYAML's events; depth is bounded, so recursion is."""

    name: str
    anchors: dict[str, _Built | None] = field(default_factory=dict)
    aliases: int = 0
    built: int = 0

    def document(self, events: Iterable[yaml.Event]) -> Node | None:
        """The one document of the stream."""
        stream = iter(events)
        root: Node | None = None
        for event in stream:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self.refuse(event, "a second document begins", "one document a file")
                root = self.node(next(stream), stream, 1).node
        if isinstance(root, ScalarNode) and root.is_null:
            return None
        return root

    def node(self, event: yaml.Event, stream: Iterator[yaml.Event], depth: int) -> _Built:
        """The node that this event begins."""
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        if depth > MAX_DEPTH:
            raise self.refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if not isinstance(event, _Opening):
            raise self.refuse(event, "a value is missing here")
        if event.tag is not None and event.tag != "!":
            message = f"the tag {_short(event.tag)} is not accepted"
            raise self.refuse(event, message, "tags have no use here: leave it out")
        self.built += 1
        if self.built > MAX_NODES:
            raise self.refuse(event, f"more than {MAX_NODES:,} values")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        built = self.untagged(event, stream, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = built
        if built.size > MAX_NODES:
            raise self.refuse(event, f"more than {MAX_NODES:,} values with aliases expanded")
        return built

    def untagged(self, event: _Opening, stream: Iterator[yaml.Event], depth: int) -> _Built:
        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            if _SURROGATE.search(event.value):
                raise self.refuse(event, *_NO_ESCAPE)
            return _Built(ScalarNode(event.value, line, quoted=bool(event.style)))
        if isinstance(event, yaml.SequenceStartEvent):
            items = list(self.children(stream, depth, yaml.SequenceEndEvent))
            return _together(SequenceNode(tuple(item.node for item in items), line), items)
        children = self.children(stream, depth, yaml.MappingEndEvent)
        pairs = [(key, next(children)) for key in children]
        mapping = self.mapping([(key.node, value.node) for key, value in pairs], line)
        return _together(mapping, [built for pair in pairs for built in pair])

    def children(
        self, stream: Iterator[yaml.Event], depth: int, end: type[yaml.Event]
    ) -> Iterator[_Built]:
        for event in stream:
            if isinstance(event, end):
                return
            yield self.node(event, stream, depth + 1)

    def alias(self, event: yaml.AliasEvent, depth: int) -> _Built:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise self.refuse(event, f"more than {MAX_ALIASES} aliases")
        name = event.anchor or ""
        if name not in self.anchors:
            raise self.refuse(event, f"no anchor &{_short(name)} stands before this alias")
        built = self.anchors[name]
        if built is None:
            raise self.refuse(event, f"the alias *{_short(name)} stands inside its own anchor")
        if depth + built.height - 1 > MAX_DEPTH:
            raise self.refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        return built

    def mapping(self, pairs: list[tuple[Node, Node]], line: int) -> MappingNode:
        """Keys are the text as written, so that `on:` and `2024:` are names like any other."""
        entries: dict[str, Entry] = {}
        duplicates: list[DuplicateKey] = []
        merged: list[Entry] = []
        for key, value in pairs:
            if not isinstance(key, ScalarNode):
                raise _refuse(self.name, key.line or line, "a key must be a single word or text")
            if len(key.text) > MAX_KEY_CHARACTERS:
                message = f"a key of more than {MAX_KEY_CHARACTERS:,} characters"
                raise _refuse(self.name, key.line, message)
            if key.text == _MERGE_KEY and not key.quoted:
                merged += self.merged_entries(value, key.line)
            elif key.text in entries:
                duplicates.append(DuplicateKey(key.text, entries[key.text].line, key.line))
            else:
                entries[key.text] = Entry(key.text, key.line, value)
        for entry in merged:
            entries.setdefault(entry.key, entry)
        return MappingNode(tuple(entries.values()), line, tuple(duplicates))

    def merged_entries(self, value: Node, line: int) -> list[Entry]:
        """What `<<: *base` or `<<: [*a, *b]` brings in; the first that has a key wins."""
        sources = value.items if isinstance(value, SequenceNode) else (value,)
        entries: list[Entry] = []
        for source in sources:
            if not isinstance(source, MappingNode):
                raise _refuse(self.name, line, "`<<` takes an alias of a mapping", "`<<: *name`")
            entries += source.entries
        return entries

    def refuse(self, event: yaml.Event, message: str, hint: str = "") -> StrategyError:
        return _refuse(self.name, _line(event), message, hint)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS else name[: _SHOWN_CHARACTERS - 1] + "…"


def _together(node: Node, children: list[_Built]) -> _Built:
    height = 1 + max((child.height for child in children), default=0)
    return _Built(node, height, 1 + sum(child.size for child in children))


def _syntax_error(error: yaml.MarkedYAMLError, text: str, name: str) -> StrategyError:
    """The same words, whichever of PyYAML's two parsers found it."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    opened = error.context_mark.line + 1 if error.context_mark else line
    lines = text.splitlines()
    source = lines[line - 1] if line <= len(lines) else ""
    message, hint = _explain(error, source, mark.column if mark else 0, opened)
    return _refuse(name, line, message, hint)


def _explain(error: yaml.MarkedYAMLError, source: str, column: int, opened: int) -> tuple[str, str]:
    problem, context = str(error.problem), str(error.context)
    indentation = source[: len(source) - len(source.lstrip())]
    if "\t" in indentation:
        return "a tab stands in the indentation", "YAML is indented with spaces"
    if "mapping values are not allowed" in problem:
        return "a `:` stands where no key can begin", 'put text that holds ": " in quotes'
    if "flow sequence" in context:
        return (
            f"the list opened with `[` in line {opened} is not closed",
            "a comma or `]` belongs here",
        )
    if "flow mapping" in context:
        return (
            f"the mapping opened with `{{` in line {opened} is not closed",
            "a comma or `}` belongs here",
        )
    if "escape" in problem or "hex" in problem:
        return _NO_ESCAPE
    if "quoted scalar" in context:
        return (
            f"the text whose quote opens in line {opened} is not closed",
            "end it with the same quote",
        )
    if "simple key" in context:
        return "expected `key: value`", "a colon and a space belong after the key"
    if "cannot start any token" in problem:
        return f"`{source[column : column + 1]}` cannot begin a value", "put the value in quotes"
    if "block mapping" in context or "block collection" in context:
        return (
            f"this line does not continue the block that begins in line {opened}",
            "keys of one block begin in the same column",
        )
    return " ".join(part for part in (error.context, error.problem) if part), ""
