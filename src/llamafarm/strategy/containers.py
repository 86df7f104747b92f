"""Which strategies a file holds: a key each, a mapping or a list under `strategies:`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from llamafarm.errors import Problem
from llamafarm.strategy.keys import FILE_SIBLINGS
from llamafarm.strategy.model import Notice
from llamafarm.strategy.nodes import Entry, MappingNode, Node, ScalarNode, SequenceNode, shown
from llamafarm.strategy.values import did_you_mean, nearest

VERSIONS = ("2.0", "2.0.0", "2")
# Strategies of one `extends`, the first included.
MAX_CHAIN = 16
_STRATEGIES = "strategies"
_VERSION = "version"
TOP_KEYS = frozenset({_VERSION, _STRATEGIES, "components", *FILE_SIBLINGS})
# An id becomes a directory's name.
_ID = re.compile(r"[^\W.][^/\\\x00-\x1f]{0,99}")
_EXAMPLE = "begin with a strategy's name, then `components:` indented below it"


@dataclass(frozen=True, slots=True)
class Found:
    """A strategy as it stands in the file. node: its block, empty when nothing follows the key."""

    id: str
    line: int
    node: MappingNode
    in_list: bool = False

    def text(self, key: str) -> str | None:
        """A key's text, where it has one."""
        entry = self.node.get(key)
        value = entry.value if entry is not None else None
        return value.text if isinstance(value, ScalarNode) and not value.is_null else None

    @property
    def components(self) -> MappingNode:
        """The block of components; an empty one where there is none."""
        entry = self.node.get("components")
        block = entry.value if entry is not None else None
        return block if isinstance(block, MappingNode) else MappingNode(())

    @property
    def fine_tuner(self) -> Entry | None:
        """`components.fine_tuner`, where this block itself has it."""
        return self.components.get("fine_tuner")


@dataclass(slots=True)
class Layout:
    """What a file is made of. problems: of the file as a whole; broken: of single strategies,
    which do not spoil their neighbours.
    """

    file: Path
    found: dict[str, Found] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: list[tuple[str, Problem]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def where(self, line: int) -> str:
        """`file:line`."""
        return f"{self.file}:{line}"


def read_layout(root: Node | None, file: Path) -> Layout:
    """The strategies of a file, whichever of the three containers it uses."""
    layout = Layout(file)
    if root is None:
        layout.problems.append(
            Problem("the file holds no strategy", layout.where(1), hint=_EXAMPLE)
        )
    elif not isinstance(root, MappingNode):
        layout.problems.append(
            Problem(
                f"expected a mapping of strategies (got {shown(root)})",
                layout.where(root.line),
                hint=_EXAMPLE,
            )
        )
    else:
        _read_top(root, layout)
    return layout


def _read_top(root: MappingNode, layout: Layout) -> None:
    nameless = root.get("components")
    if nameless is not None:
        message = "a strategy's name is missing above this block"
        where = layout.where(nameless.line)
        layout.problems.append(Problem(message, where, nameless.key, _EXAMPLE))
        return
    _duplicates(root, layout, "")
    contained = root.get(_STRATEGIES) is not None
    for entry in root:
        if entry.key == _VERSION:
            _check_version(entry, layout)
        elif entry.key == _STRATEGIES:
            _read_container(entry, layout)
        elif entry.key in FILE_SIBLINGS:
            _ignored(entry, layout, "it belongs to inference in the wider product")
        elif isinstance(entry.value, MappingNode) and not contained:
            _keep(layout, Found(entry.key, entry.line, entry.value))
        elif isinstance(entry.value, MappingNode):
            _beside_container(entry, entry.value, layout)
        else:
            _stray(entry, layout, contained)


def _beside_container(entry: Entry, block: MappingNode, layout: Layout) -> None:
    """A block beside `strategies:` is a strategy if it has components."""
    found = Found(entry.key, entry.line, block)
    if found.components.entries:
        _keep(layout, found)
    else:
        _ignored(entry, layout, "it is no strategy: it has no `components`")


def _stray(entry: Entry, layout: Layout, contained: bool) -> None:
    """A key of the file that is neither a strategy nor known."""
    if isinstance(entry.value, ScalarNode) and entry.value.is_null and not contained:
        _keep(layout, Found(entry.key, entry.line, MappingNode((), entry.line)))
        return
    known = (_VERSION, _STRATEGIES, *FILE_SIBLINGS)
    close = nearest(entry.key, known)
    hint = did_you_mean(close) if close else "a strategy is a mapping with `components`"
    layout.problems.append(
        Problem(
            f"unknown key (got {shown(entry.value)})", layout.where(entry.line), entry.key, hint
        )
    )


def _read_container(entry: Entry, layout: Layout) -> None:
    block = entry.value
    if isinstance(block, MappingNode):
        _duplicates(block, layout, _STRATEGIES + ".")
        for inner in block:
            if isinstance(inner.value, MappingNode):
                _keep(layout, Found(inner.key, inner.line, inner.value))
            elif isinstance(inner.value, ScalarNode) and inner.value.is_null:
                _keep(layout, Found(inner.key, inner.line, MappingNode((), inner.line)))
            else:
                _broken(layout, inner.key, inner.line, inner.value)
    elif isinstance(block, SequenceNode):
        for item in block.items:
            _read_item(item, layout)
    else:
        layout.problems.append(
            Problem(
                f"expected a mapping or a list of strategies (got {shown(block)})",
                layout.where(entry.line),
                _STRATEGIES,
                _EXAMPLE,
            )
        )


def _read_item(item: Node, layout: Layout) -> None:
    """In a list the id is `name`."""
    if not isinstance(item, MappingNode):
        _broken(layout, "", item.line, item)
        return
    found = Found("", item.line, item, in_list=True)
    name = found.text("name")
    if name:
        _keep(layout, Found(name, item.line, item, in_list=True))
    else:
        message = "a strategy in a list needs a `name`: it is its id"
        layout.broken.append(("", Problem(message, layout.where(item.line), _STRATEGIES)))


def _keep(layout: Layout, found: Found) -> None:
    """Two strategies of one id are both at fault; so is an id that cannot name a directory."""
    path = f"{_STRATEGIES}.{found.id}" if found.in_list else found.id
    if found.id in layout.found:
        first = layout.found[found.id].line
        message = f"the strategy stands twice: in line {first} and in line {found.line}"
        problem = Problem(message, layout.where(found.line), path, "rename one of the two")
        layout.broken.append((found.id, problem))
        return
    if not _ID.fullmatch(found.id):
        message = "the id of a strategy names a directory: it begins with a letter or digit, and "
        problem = Problem(message + "holds no slash", layout.where(found.line), path)
        layout.broken.append((found.id, problem))
    layout.found[found.id] = found


def _duplicates(mapping: MappingNode, layout: Layout, prefix: str) -> None:
    for duplicate in mapping.duplicates:
        problem = Problem(
            f"the key stands twice: in line {duplicate.first_line} and in line {duplicate.line}",
            layout.where(duplicate.line),
            prefix + duplicate.key,
            "keep one of the two",
        )
        if prefix or duplicate.key not in (_VERSION, _STRATEGIES):
            layout.broken.append((duplicate.key, problem))
        else:
            layout.problems.append(problem)


def _broken(layout: Layout, name: str, line: int, node: Node) -> None:
    problem = Problem(
        f"expected a mapping with `components` (got {shown(node)})",
        layout.where(line),
        f"{_STRATEGIES}.{name}".rstrip("."),
    )
    layout.broken.append((name, problem))


def _check_version(entry: Entry, layout: Layout) -> None:
    if isinstance(entry.value, ScalarNode) and entry.value.text.strip() in VERSIONS:
        return
    layout.problems.append(
        Problem(
            f'expected "2.0" (got {shown(entry.value)})',
            layout.where(entry.line),
            entry.key,
            "files of other versions have another shape",
        )
    )


def _ignored(entry: Entry, layout: Layout, why: str) -> None:
    message = f"`{entry.key}` has no effect: {why}"
    layout.notices.append(Notice(path=entry.key, message=message, where=layout.where(entry.line)))


def extends_chain(layout: Layout, found: Found) -> tuple[tuple[Found, ...], Problem | None]:
    """The strategy, then what it extends, nearest first; and the fault that ends the chain."""
    chain = [found]
    while True:
        entry = chain[-1].node.get("extends")
        if entry is None or (isinstance(entry.value, ScalarNode) and entry.value.is_null):
            return tuple(chain), None
        path = f"{chain[-1].id}.extends"
        where = layout.where(entry.line)
        if not isinstance(entry.value, ScalarNode):
            message = f"expected the id of a strategy (got {shown(entry.value)})"
            return tuple(chain), Problem(message, where, path)
        base = entry.value.text
        ids = [link.id for link in chain]
        if base in ids:
            circle = " -> ".join([*ids, base])
            return tuple(chain), Problem(f"a circle: {circle}", where, path, "end it somewhere")
        if len(chain) == MAX_CHAIN:
            message = f"a strategy that extends more than {MAX_CHAIN - 1} others"
            return tuple(chain), Problem(message, where, path, "write what they share once")
        if base not in layout.found:
            others = [name for name in layout.found if name not in ids]
            close = nearest(base, others)
            listed = f"this file has: {', '.join(others)}" if others else ""
            hint = did_you_mean(close) if close else listed
            return tuple(chain), Problem(f'no strategy "{base}" in this file', where, path, hint)
        chain.append(layout.found[base])
