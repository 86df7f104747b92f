"""From the nodes of a strategy to assignments: keys looked up in the table, values read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamafarm.errors import Problem
from llamafarm.strategy.assignment import Assignment, Findings
from llamafarm.strategy.expand import ExpansionError, expand
from llamafarm.strategy.keys import ASKED, CONFIG, Key, KeyTree, key_tree, keys
from llamafarm.strategy.model import Notice, Origin
from llamafarm.strategy.nodes import (
    DuplicateKey,
    Entry,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    shown,
)
from llamafarm.strategy.values import (
    BadValueError,
    checked,
    did_you_mean,
    nearest,
    read_value,
)

_SURE = 0.8
# Values of such keys are not repeated in messages.
_SECRET = re.compile(r"tok|secret|passw|key", re.IGNORECASE)
_LISTED_KEYS = 8


@dataclass(frozen=True, slots=True)
class Collected:
    """What a strategy's text, or a list of flags, holds."""

    assignments: tuple[Assignment, ...]
    findings: Findings


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a value is being read. path: from the strategy's root; full_path: for messages."""

    path: str
    full_path: str
    where: str
    origin: Origin
    layer: int
    rank_offset: int = 0


@dataclass(slots=True)
class Collector:
    """Reads values one by one, and keeps what is to be said about them."""

    backend: str
    environ: Mapping[str, str] | None
    assignments: list[Assignment] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    noticed: dict[str, list[tuple[Key, Spot]]] = field(default_factory=dict)
    remarks: list[Notice] = field(default_factory=list)

    def read(self, key: Key, target: str, node: Node, spot: Spot) -> None:
        """The value that stands at a row of the table."""
        if key.status == "notice":
            self.noticed.setdefault(key.group or spot.full_path, []).append((key, spot))
            return
        try:
            node = node if self.environ is None else expand(node, self.environ)
            self.assign(key, target, node, spot)
        except ExpansionError as error:
            where = f"{spot.origin.file}:{error.line}"
            self.problem(error.message, spot, error.hint, where=where)
        except BadValueError as error:
            self.problem(error.message, spot, error.hint)

    def assign(self, key: Key, target: str, node: Node, spot: Spot) -> None:
        """One assignment, or as many as the key's conversion makes. Raises BadValueError."""
        if isinstance(node, ScalarNode) and node.is_null:
            self.add(key, target, None, node, spot, is_null=True)
            return
        for duplicate in _duplicates(node):
            self.duplicate(duplicate.key, duplicate.first_line, duplicate.line, spot)
        if key.conversion is None:
            self.add(key, target, read_value(target, node), node, spot)
            return
        for path, value in key.conversion.apply(node, target):
            is_field = not path.startswith(ASKED)
            self.add(key, path, checked(path, value, node) if is_field else value, node, spot)
        said = key.conversion.remarks.get(node.text) if isinstance(node, ScalarNode) else None
        if said:
            message = f"{spot.path.removeprefix(CONFIG)}: {shown(node)} sets nothing: {said}"
            self.remarks.append(Notice(path=spot.full_path, message=message, where=spot.where))

    def add(
        self,
        key: Key,
        target: str,
        value: object,
        node: Node,
        spot: Spot,
        *,
        is_null: bool = False,
    ) -> None:
        """Keeps a value that was read and checked."""
        rank = key.rank + spot.rank_offset
        self.assignments.append(
            Assignment(
                target, value, key, spot.layer, rank, spot.path, shown(node), spot.origin, is_null
            )
        )

    def problem(self, message: str, spot: Spot, hint: str = "", *, where: str = "") -> None:
        """Keeps a fault. where: another line than the key's."""
        self.problems.append(Problem(message, where or spot.where, spot.full_path, hint))

    def duplicate(self, name: str, first_line: int, line: int, spot: Spot) -> None:
        """`name` stands in both lines of the mapping at this spot."""
        self.problems.append(
            Problem(
                f"the key stands twice: in line {first_line} and in line {line}",
                where=f"{spot.origin.file}:{line}",
                path=f"{spot.full_path}.{name}",
                hint="keep one of the two",
            )
        )

    def collected(self) -> Collected:
        """Everything that was read; of the notices of one group only one line."""
        notices = (*self.remarks, *(_notice(found) for found in self.noticed.values()))
        findings = Findings(tuple(self.problems), notices)
        return Collected(tuple(self.assignments), findings)


@dataclass(frozen=True, slots=True)
class StrategyText:
    """The nodes of one strategy. layer: 1 for the strategy itself, more for what it extends."""

    strategy_id: str
    node: MappingNode
    file: Path
    layer: int = 1


def collect_text(text: StrategyText, backend: str, environ: Mapping[str, str]) -> Collected:
    """All values of a strategy's text; faults are collected, never raised."""
    collector = Collector(backend, environ)
    _walk(text, collector, text.node, key_tree(), ())
    return collector.collected()


def _walk(
    text: StrategyText,
    collector: Collector,
    mapping: MappingNode,
    tree: KeyTree,
    parents: tuple[str, ...],
) -> None:
    for duplicate in mapping.duplicates:
        spot = _spot(text, parents, duplicate.line)
        collector.duplicate(duplicate.key, duplicate.first_line, duplicate.line, spot)
    for entry in mapping:
        spot = _spot(text, (*parents, entry.key), entry.line)
        child = tree.child(entry.key)
        if child is None or not child.holds_for(collector.backend):
            hint = unknown_key_hint(entry.key, tree, collector.backend)
            value = "a secret" if _SECRET.search(entry.key) else shown(entry.value)
            collector.problem(f"unknown key (got {value})", spot, hint)
            continue
        row = child.row(collector.backend, mapping.keys())
        has_keys = bool(child.names(collector.backend)) or child.any_name is not None
        if row is not None and (row.status == "structure" or _is_inherited_name(row, text)):
            continue
        if has_keys and isinstance(entry.value, MappingNode) and not _is_notice(row):
            _walk(text, collector, entry.value, child, (*parents, entry.key))
        elif row is not None:
            collector.read(row, row.target.replace("*", entry.key), entry.value, spot)
        elif not _is_null(entry):
            collector.problem(f"expected a mapping (got {shown(entry.value)})", spot)


def _spot(text: StrategyText, parts: tuple[str, ...], line: int) -> Spot:
    origin = Origin(kind="strategy", file=text.file, line=line, strategy_id=text.strategy_id)
    path = ".".join(parts)
    full_path = ".".join((text.strategy_id, *parts))
    return Spot(path, full_path, f"{text.file}:{line}", origin, text.layer)


def unknown_key_hint(name: str, tree: KeyTree, backend: str) -> str:
    """What a key that does not stand in this block was probably meant to be."""
    here = tree.names(backend)
    sure = nearest(name, here, _SURE)
    if sure:
        return did_you_mean(sure)
    elsewhere = _elsewhere(name, backend)
    if elsewhere:
        return elsewhere
    close = nearest(name, here)
    if close:
        return did_you_mean(close)
    return f"keys here: {', '.join(here)}" if 0 < len(here) <= _LISTED_KEYS else ""


def _elsewhere(name: str, backend: str) -> str:
    """Where a key or block of this name has its place, if not here."""
    for row in keys():
        parts = row.path.split(".")
        if name not in parts or row.status != "obeyed":
            continue
        if row.backend not in ("", backend):
            return f"`{name}` is a key of `type: {row.backend}`"
        return f"its place is `{'.'.join(parts[: parts.index(name) + 1])}`"
    return ""


def _notice(found: list[tuple[Key, Spot]]) -> Notice:
    key, first = found[0]
    names = [f"`{spot.path.removeprefix(CONFIG)}`" for _, spot in found]
    verb = "has" if len(names) == 1 else "have"
    message = f"{', '.join(names)} {verb} no effect: {key.text}"
    return Notice(path=first.full_path, message=message, where=first.where)


def _is_inherited_name(row: Key, text: StrategyText) -> bool:
    """What a strategy is called is not what those that extend it are called."""
    return text.layer > 1 and row.target in ("title", "description")


def _is_notice(row: Key | None) -> bool:
    return row is not None and row.status == "notice"


def _is_null(entry: Entry) -> bool:
    return isinstance(entry.value, ScalarNode) and entry.value.is_null


def _duplicates(node: Node) -> Iterator[DuplicateKey]:
    if isinstance(node, MappingNode):
        yield from node.duplicates
        for entry in node:
            yield from _duplicates(entry.value)
    elif isinstance(node, SequenceNode):
        for item in node.items:
            yield from _duplicates(item)
