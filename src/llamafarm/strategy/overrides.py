"""Values from the command line: the same table and checks as for a file, and they win over it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llamafarm.errors import Problem, StrategyError
from llamafarm.redact import redact
from llamafarm.strategy.assignment import FLAG_LAYER
from llamafarm.strategy.collect import Collected, Collector, Spot
from llamafarm.strategy.keys import CONFIG, Key, keys
from llamafarm.strategy.model import Origin
from llamafarm.strategy.nodes import MappingNode, Node, ScalarNode, from_plain, to_plain
from llamafarm.strategy.values import did_you_mean, nearest
from llamafarm.strategy.yaml_reader import parse_yaml


@dataclass(frozen=True, slots=True)
class Override:
    """One value that was given as a flag.

    path: a canonical path, a path as in the file, or the end of one where that is unambiguous;
    text: the flag as typed, for messages; node: the value's own spelling, where there is one.
    """

    path: str
    value: object
    text: str
    node: Node | None = field(default=None, repr=False, compare=False)


def parse_set(setting: str) -> Override:
    """`training_args.max_steps=20` as an override; the value is read as YAML (`[q_proj, v_proj]`).

    Raises StrategyError when there is no `=`, no path, or the value is not YAML.
    """
    text = redact(f"--set {setting}")
    path, equals, value = setting.partition("=")
    if not equals or not path.strip():
        raise _refused(text, "expected path=value", "for example --set training_args.max_steps=20")
    try:
        node = parse_yaml(value, "--set") or ScalarNode("")
    except StrategyError as error:
        problem = error.problems[0]
        raise _refused(text, problem.message, problem.hint) from None
    return Override(path.strip(), to_plain(node), text, node)


def collect_overrides(overrides: Sequence[Override], backend: str) -> Collected:
    """The values of flags, checked like those of a file. Of two for one path the later one wins."""
    collector = Collector(backend, environ=None)
    for later, override in zip(range(len(overrides))[::-1], overrides, strict=True):
        spot = Spot(
            path=override.path,
            full_path=override.path,
            where=override.text,
            origin=Origin(kind="flag", text=override.text),
            layer=FLAG_LAYER,
            rank_offset=later * len(keys()),
        )
        node = override.node or from_plain(override.value)
        family = _family(override.path, backend) if isinstance(node, MappingNode) else None
        if family is not None and isinstance(node, MappingNode):
            for entry in node:
                target = family.target.replace("*", entry.key)
                collector.read(family, target, entry.value, replace(spot, path=target))
            continue
        row = _find(override.path, backend, spot, collector)
        if row is not None:
            collector.read(row, _target(row, override.path), node, spot)
    return collector.collected()


def backend_override(overrides: Sequence[Override]) -> Override | None:
    """The flag that chooses what carries the training out, if one does."""
    paths = ("backend", "components.fine_tuner.type", "fine_tuner.type")
    return next((o for o in reversed(overrides) if o.path in paths), None)


def _find(path: str, backend: str, spot: Spot, collector: Collector) -> Key | None:
    """The row that a path, whole or short, stands for; otherwise a problem is kept."""
    rows = [row for row in keys() if row.backend in ("", backend) and row.status != "structure"]
    # A name that has a row of its own is none of those that are the user's own.
    own = [row for row in rows if row.path.endswith(".*")]
    named = [row for row in rows if not row.path.endswith(".*")]
    ways_to_mean = (_is_target, _is_path, _ends_target, _ends_path)
    for of, ways in itertools.product((named, own), ways_to_mean):
        found = [row for row in of if ways(row, path)]
        effects = {_target(row, path): row for row in reversed(found) if row.status == "obeyed"}
        effects = effects or {row.path: row for row in reversed(found)}
        if len(effects) == 1:
            return next(iter(effects.values()))
        if effects:
            candidates = ", ".join(sorted(effects))
            message = f"`{path}` may mean {len(effects)} keys: {candidates}"
            collector.problem(message, spot, "write the whole path")
            return None
    collector.problem("unknown key", spot, _unknown_hint(path, rows))
    return None


def _family(path: str, backend: str) -> Key | None:
    """The row whose names are the user's own (`dataset.columns.*`), where the path means one."""
    rows = [row for row in keys() if row.backend in ("", backend) and row.status == "obeyed"]
    named = f"{path}.name"
    found = {
        row.target: row
        for row in reversed(rows)
        if row.path.endswith(".*") and (_is_target(row, named) or _ends_target(row, named))
    }
    return next(iter(found.values())) if len(found) == 1 else None


def _unknown_hint(path: str, rows: Sequence[Key]) -> str:
    last = path.rsplit(".", 1)[-1]
    other = next((row.backend for row in keys() if row.name == last and row not in rows), "")
    if other:
        return f"`{last}` is a key of `type: {other}`"
    names = {name for row in rows for name in (row.target, row.name)}
    close = nearest(path, names, 0.7) or nearest(last, names, 0.7)
    return did_you_mean(close) if close else ""


def _is_target(row: Key, path: str) -> bool:
    return _matches(row.target, path)


def _is_path(row: Key, path: str) -> bool:
    return _matches(row.path, path) or _matches(row.path, CONFIG + path)


def _ends_target(row: Key, path: str) -> bool:
    return _ends(row.target, path)


def _ends_path(row: Key, path: str) -> bool:
    return _ends(row.path, path)


def _matches(pattern: str, path: str) -> bool:
    """Equal; a `*` at the end stands for one further name."""
    if not pattern.endswith(".*"):
        return pattern == path
    parent, dot, name = path.rpartition(".")
    return bool(dot and name) and parent == pattern[:-2]


def _ends(pattern: str, path: str) -> bool:
    """Whether the pattern ends in the path, at a dot; a `*` takes the path's last name."""
    if pattern.endswith(".*"):
        parent, dot, name = path.rpartition(".")
        return bool(dot and name) and f".{pattern[:-2]}".endswith(f".{parent}")
    return bool(pattern) and f".{pattern}".endswith(f".{path}")


def _target(row: Key, path: str) -> str:
    return row.target.replace("*", path.rsplit(".", 1)[-1])


def _refused(text: str, message: str, hint: str) -> StrategyError:
    return StrategyError(
        "the command line has 1 problem", [Problem(message, where=text, hint=hint)]
    )
