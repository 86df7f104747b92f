"""The keys of a file that another tool defined: each is obeyed, noticed, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from llamafarm.errors import DataError, Problem, count_of
from llamafarm.strategy.nodes import Entry, MappingNode, Node, ScalarNode, SequenceNode, shown

_LISTED = 12


@dataclass(slots=True)
class Findings:
    """Problems and notices of one file. name: the file, as messages show it."""

    name: str
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def fault(self, message: str, *, line: int = 0, path: str = "", hint: str = "") -> None:
        """Note a problem. line: 0 where none is known."""
        where = f"{self.name}:{line}" if line else self.name
        self.problems.append(Problem(message, where=where, path=path, hint=hint))

    def raise_problems(self) -> None:
        """Raise DataError with all problems, if there are any."""
        if self.problems:
            count = count_of(len(self.problems), "problem")
            raise DataError(f"{self.name} has {count}", self.problems)


class Settings:
    """The keys of one mapping. A key that is null counts as left out."""

    def __init__(self, node: MappingNode, path: str, found: Findings) -> None:
        self.line = node.line
        self._path = path
        self._found = found
        self._entries = {entry.key: entry for entry in node if not _is_null(entry.value)}
        self._known: set[str] = set()
        for twice in node.duplicates:
            found.fault(
                f"the key stands twice, first in line {twice.first_line}",
                line=twice.line,
                path=self.path(twice.key),
            )

    def path(self, key: str) -> str:
        """The dotted path of a key."""
        return f"{self._path}.{key}" if self._path else key

    def has(self, key: str) -> bool:
        """Whether the key says anything; it is known from now on."""
        self._known.add(key)
        return key in self._entries

    def node(self, key: str) -> Node | None:
        """What the key says, as it was written."""
        return self._entries[key].value if self.has(key) else None

    def fault(self, key: str, message: str, hint: str = "") -> None:
        """Note a problem at a key."""
        entry = self._entries.get(key)
        line = entry.line if entry else self.line
        self._found.fault(message, line=line, path=self.path(key), hint=hint)

    def notice(self, text: str) -> None:
        """Say something that is no fault."""
        self._found.notices.append(f"{self._found.name}: {text}")

    def text(self, key: str) -> str:
        """A text; empty where the key is left out."""
        node = self.node(key)
        if node is None:
            return ""
        if isinstance(node, ScalarNode) and isinstance(node.value, str) and node.text.strip():
            return node.text
        self.fault(key, f"expected a text (got {shown(node)})")
        return ""

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, or one alone."""
        node = self.node(key)
        if node is None:
            return ()
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if all(isinstance(item, ScalarNode) and isinstance(item.value, str) for item in items):
            return tuple(item.text for item in items if isinstance(item, ScalarNode))
        self.fault(key, f"expected a text or a list of texts (got {shown(node)})")
        return ()

    def flag(self, key: str) -> bool:
        """True or false; false where the key is left out."""
        node = self.node(key)
        if node is None:
            return False
        if isinstance(node, ScalarNode) and isinstance(node.value, bool):
            return node.value
        self.fault(key, f"expected true or false (got {shown(node)})")
        return False

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of these texts; empty where the key is left out, or says something else."""
        text = self.text(key)
        if not text or text in allowed:
            return text
        near = get_close_matches(text, allowed, n=1)
        self.fault(
            key,
            f'expected one of {", ".join(allowed)} (got "{text}")',
            f"did you mean `{near[0]}`?" if near else "",
        )
        return ""

    def section(self, key: str) -> Settings | None:
        """A mapping inside this one."""
        node = self.node(key)
        if node is None or isinstance(node, MappingNode):
            return Settings(node, self.path(key), self._found) if node else None
        self.fault(key, f"expected a mapping (got {shown(node)})")
        return None

    def mapped(self, names: Mapping[str, str]) -> dict[str, str]:
        """our name → what the key says, for every `key: our name` that says something."""
        return {ours: text for key, ours in names.items() if (text := self.text(key))}

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Keys that cannot be obeyed, each with what to do instead; `false` asks for nothing."""
        for key, hint in reasons.items():
            if self.has(key) and not self._is_false(key):
                self.fault(key, "is not obeyed", hint)

    def pass_over(self, reasons: Mapping[str, str]) -> None:
        """Keys that are not obeyed without harm, each with what holds instead."""
        for key, reason in reasons.items():
            if self.has(key) and not self._is_false(key):
                self.notice(f"{self.path(key)} is not used: {reason}")

    def _is_false(self, key: str) -> bool:
        node = self._entries[key].value
        return isinstance(node, ScalarNode) and node.value is False

    def unread(self) -> Iterator[Entry]:
        """Keys that nobody asked for."""
        return (entry for key, entry in self._entries.items() if key not in self._known)

    def refuse_unread(self) -> None:
        """Every key that nobody asked for is a problem."""
        for entry in self.unread():
            near = get_close_matches(entry.key, sorted(self._known), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {_listed(self._known)}"
            self.fault(entry.key, "unknown key", hint)


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.is_null


def _listed(names: set[str]) -> str:
    more = " …" if len(names) > _LISTED else ""
    return ", ".join(sorted(names)[:_LISTED]) + more
