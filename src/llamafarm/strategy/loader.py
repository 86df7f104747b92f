"""A strategy file to its strategies, and one of them to a checked `Strategy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import Problem, StrategyError, count_of
from llamafarm.strategy.assignment import Findings
from llamafarm.strategy.collect import StrategyText, collect_text
from llamafarm.strategy.containers import Found, Layout, extends_chain, read_layout
from llamafarm.strategy.expand import ExpansionError, expand
from llamafarm.strategy.fields import find_spec
from llamafarm.strategy.model import Notice, Origin, Strategy
from llamafarm.strategy.nodes import MappingNode, ScalarNode
from llamafarm.strategy.overrides import Override, backend_override, collect_overrides
from llamafarm.strategy.settle import Settled, settle
from llamafarm.strategy.values import did_you_mean, nearest
from llamafarm.strategy.yaml_reader import read_yaml

_BACKENDS = ("pytorch", "llamafactory")


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy of a file, before its values are looked at. trainable: it has a fine-tuner."""

    id: str
    title: str
    description: str
    backend: str | None
    trainable: bool
    line: int


@dataclass(frozen=True, slots=True)
class StrategyFile:
    """What a file holds. problems: of the file, and of strategies that cannot be read at all."""

    path: Path
    entries: tuple[StrategyEntry, ...]
    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()


def load_strategy_file(path: Path, *, environ: Mapping[str, str]) -> StrategyFile:
    """The strategies of a file. Raises StrategyError if it cannot be read, or is not YAML.

    environ: for the `${VAR}` of titles and descriptions; an unset variable stays as it is written.
    """
    layout = read_layout(read_yaml(path), path)
    entries = tuple(_entry(layout, found, environ) for found in layout.found.values())
    problems = (*layout.problems, *(problem for _, problem in layout.broken))
    return StrategyFile(path, entries, problems, tuple(layout.notices))


def load_strategy(
    path: Path,
    name: str | None,
    overrides: Sequence[Override] = (),
    *,
    environ: Mapping[str, str],
) -> Strategy:
    """One strategy of a file, checked, with the values of flags in it.

    name None: the only one that can be trained. What is wrong with its neighbours does not matter.
    Raises StrategyError with all its faults, in the order of the file, those of flags last.
    """
    layout = read_layout(read_yaml(path), path)
    if layout.problems:
        raise _refused(str(path), layout.problems)
    found = _choose(layout, name)
    of_choice = [problem for broken, problem in layout.broken if broken == found.id]
    chain, chain_problem = extends_chain(layout, found)
    texts = [StrategyText(link.id, link.node, path, n) for n, link in enumerate(chain, start=1)]
    backend = _backend(chain, overrides)
    collected = [collect_text(text, backend, environ) for text in texts]
    flags = collect_overrides(overrides, backend)
    settled = settle(a for part in (flags, *collected) for a in part.assignments)
    findings = sum((part.findings for part in (*collected, flags)), Findings()) + settled.findings
    problems = [*of_choice, *([chain_problem] if chain_problem else []), *findings.problems]
    if problems:
        raise _refused(str(path), problems)
    notices = (*layout.notices, *findings.notices)
    return build_strategy(found.id, settled, notices, file=path)


def default_strategy(strategy_id: str, overrides: Sequence[Override] = ()) -> Strategy:
    """A strategy without a file: every value left out, but for those of flags.

    Raises StrategyError with the faults of all flags.
    """
    flags = collect_overrides(overrides, _backend((), overrides))
    settled = settle(flags.assignments)
    findings = flags.findings + settled.findings
    if findings.problems:
        raise _refused("the command line", findings.problems)
    return build_strategy(strategy_id, settled, findings.notices, file=None)


def build_strategy(
    strategy_id: str, settled: Settled, notices: Sequence[Notice], *, file: Path | None
) -> Strategy:
    """The model with these values in it, each already checked, and their origins."""
    values: dict[str, Any] = {"id": strategy_id, "file": file, "notices": tuple(notices)}
    origins: dict[str, Origin] = {}
    for path, assignment in settled.values.items():
        put(values, path, assignment.value)
        spec = find_spec(path)
        if spec is not None and spec.path != path:
            origins.setdefault(spec.path, assignment.origin)
        origins[path] = assignment.origin
    return Strategy.model_validate({**values, "origins": origins})


def put(values: dict[str, Any], path: str, value: object) -> None:
    """Sets a value in nested dicts by its dotted path; in a mapping field the rest is one key."""
    spec = find_spec(path)
    parts = path.split(".") if spec is None or spec.path == path else spec.path.split(".")
    if spec is not None and spec.path != path:
        parts.append(path.removeprefix(spec.path + "."))
    for part in parts[:-1]:
        values = values.setdefault(part, {})
    values[parts[-1]] = value


def _entry(layout: Layout, found: Found, environ: Mapping[str, str]) -> StrategyEntry:
    chain, _ = extends_chain(layout, found)
    trainable = _has_fine_tuner(chain)
    return StrategyEntry(
        id=found.id,
        title="" if found.in_list else _expanded(found.text("name"), environ),
        description=_expanded(found.text("description"), environ),
        backend=_written_type(chain) if trainable else None,
        trainable=trainable,
        line=found.line,
    )


def _choose(layout: Layout, name: str | None) -> Found:
    """The strategy of this id; without one, the only one that can be trained."""
    every = layout.found.values()
    trainable = [f.id for f in every if _has_fine_tuner(extends_chain(layout, f)[0])]
    if name is None:
        return layout.found[_only(layout, trainable)]
    found = layout.found.get(name)
    if found is None:
        raise _unknown_strategy(layout, name)
    chain, fault = extends_chain(layout, found)
    if _has_fine_tuner(chain):
        return found
    if fault is not None:
        raise _refused(str(layout.file), [fault])
    raise _untrainable(layout, found, trainable)


def _has_fine_tuner(chain: Sequence[Found]) -> bool:
    return any(link.fine_tuner is not None for link in chain)


def _only(layout: Layout, trainable: list[str]) -> str:
    if len(trainable) == 1:
        return trainable[0]
    if trainable:
        raise StrategyError(
            f"{layout.file} holds {len(trainable)} strategies that can be trained",
            hint=f"name one with --strategy: {', '.join(trainable)}",
        )
    problems = [problem for _, problem in layout.broken]
    close = nearest("strategies", layout.found, 0.8)
    hint = did_you_mean(["strategies"]) if close else "one needs `components.fine_tuner`"
    if problems:
        raise _refused(str(layout.file), problems)
    raise StrategyError(f"{layout.file} holds no strategy that can be trained", hint=hint)


def _unknown_strategy(layout: Layout, name: str) -> StrategyError:
    broken = [problem for broken_id, problem in layout.broken if broken_id == name]
    if broken:
        return _refused(str(layout.file), broken)
    close = nearest(name, layout.found)
    titles = [found.id for found in layout.found.values() if found.text("name") == name]
    if titles or close:
        hint = did_you_mean(titles or close)
    else:
        hint = f"this file has: {', '.join(layout.found)}"
    return StrategyError(f'no strategy "{name}" in {layout.file}', hint=hint)


def _untrainable(layout: Layout, found: Found, trainable: list[str]) -> StrategyError:
    misspelt = nearest("fine_tuner", found.components.keys(), 0.8)
    message = "it has no `components.fine_tuner`"
    if misspelt:
        hint = f"`{misspelt[0]}` should be `fine_tuner`"
    elif trainable:
        hint = f"those that can: {', '.join(trainable)}"
    else:
        hint = "no strategy of this file can be trained"
    problem = Problem(message, layout.where(found.line), found.id, hint)
    return StrategyError(f'strategy "{found.id}" cannot be trained', [problem])


def _backend(chain: Sequence[Found], overrides: Sequence[Override]) -> str:
    """What carries the training out; where nothing valid is written, the default."""
    flag = backend_override(overrides)
    written = str(flag.value) if flag is not None else _written_type(chain)
    return written if written in _BACKENDS else _BACKENDS[0]


def _written_type(chain: Sequence[Found]) -> str:
    """`type` of the fine-tuner as the nearest strategy of the chain has it, else the default; null
    there is the default too.
    """
    for link in chain:
        block = link.fine_tuner.value if link.fine_tuner is not None else None
        entry = block.get("type") if isinstance(block, MappingNode) else None
        if entry is not None and isinstance(entry.value, ScalarNode):
            return _BACKENDS[0] if entry.value.is_null else entry.value.text
    return _BACKENDS[0]


def _expanded(text: str | None, environ: Mapping[str, str]) -> str:
    try:
        node = expand(ScalarNode(text or "", quoted=True), environ)
    except ExpansionError:
        return text or ""
    return node.text if isinstance(node, ScalarNode) else ""


def _refused(name: str, problems: Sequence[Problem]) -> StrategyError:
    """All faults, in the order of the file; those without a line last."""
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: _line_of(problem, name))
    return StrategyError(f"{name} has {count_of(len(ordered), 'problem')}", ordered)


def _line_of(problem: Problem, name: str) -> float:
    line = problem.where.removeprefix(f"{name}:")
    return int(line) if line.isdecimal() else float("inf")
