"""`${VAR}` and `${VAR:-default}` in the values of a strategy file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llamafarm.strategy.nodes import Entry, MappingNode, Node, ScalarNode, SequenceNode

_REFERENCE = re.compile(r"\$?\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\})?")


class ExpansionError(Exception):
    """A reference that stands for nothing. line: where it was written."""

    def __init__(self, message: str, hint: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.line = line


def expand(node: Node, environ: Mapping[str, str]) -> Node:
    """The node with every reference replaced; what was unquoted is read as YAML again.

    As in a shell, the default also takes the place of an empty variable. `$${` is a literal `${`.
    Raises ExpansionError for an unset variable without default, and for a `${` that begins no
    reference.
    """
    if isinstance(node, MappingNode):
        entries = (Entry(e.key, e.line, expand(e.value, environ)) for e in node)
        return MappingNode(tuple(entries), node.line, node.duplicates)
    if isinstance(node, SequenceNode):
        return SequenceNode(tuple(expand(item, environ) for item in node.items), node.line)
    if "${" not in node.text:
        return node
    text = _REFERENCE.sub(lambda match: _replacement(match, environ, node.line), node.text)
    return ScalarNode(text, node.line, node.quoted)


def escape(text: str) -> str:
    """The text in which no reference is read: the opposite of expand."""
    return text.replace("${", "$${")


def _replacement(match: re.Match[str], environ: Mapping[str, str], line: int) -> str:
    if match[0].startswith("$$"):
        return match[0][1:]
    name, default = match[1], match[2]
    if name is None:
        hint = "write ${NAME} or ${NAME:-default}; a literal ${ is written $${"
        raise ExpansionError("`${` begins no reference to a variable", hint, line)
    if environ.get(name):
        return environ[name]
    if default is not None:
        return str(default[2:])
    if name in environ:
        return ""
    hint = f"set it (`export {name}=…`), or write ${{{name}:-default}}"
    raise ExpansionError(f"the environment variable {name} is not set", hint, line)
