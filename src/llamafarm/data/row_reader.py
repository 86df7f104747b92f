"""Takes texts out of a record and notes every fault on the way, so that a row's faults come all at
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamafarm.data.json_reader import describe
from llamafarm.data.records import BadRow, Record
from llamafarm.data.rows import Message, Role
from llamafarm.errors import Problem

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "observation", "tool_call"})
_TOOL_KEYS = ("tool_calls", "function_call", "tools")
_NOT_OBEYED = {
    "weight": "weights of turns are not obeyed by this version: leave them out",
    "reasoning_content": "reasoning is read from the content: write it there, as <think>…</think>",
}
NO_TOOLS = "tool calls are not trained by this version"


class RowReader:
    """One record under our names.

    columns: our name → the file's; keys are compared without case and spaces.
    """

    def __init__(self, record: Record, columns: Mapping[str, str], example: str) -> None:
        self.source = record.source
        self._example = example
        self._columns = columns
        self._fields = {str(k).strip().lower(): v for k, v in record.fields.items()}
        for ours, theirs in columns.items():
            self._fields.pop(ours, None)
            if theirs in record.fields:
                self._fields[ours] = record.fields[theirs]
        self._problems: list[Problem] = []
        self._only_empty = True

    def bad_row(self) -> BadRow | None:
        """The faults found so far, or None."""
        if not self._problems:
            return None
        return BadRow(self.source, tuple(self._problems), empty=self._only_empty)

    def fault(self, path: str, message: str, *, empty: bool = False) -> None:
        """Note a fault at a field; empty: a text is missing or blank."""
        self._only_empty = self._only_empty and empty
        hint = f"a row looks like {self._example}"
        self._problems.append(Problem(message, where=str(self.source), path=path, hint=hint))

    def value(self, *names: str) -> object:
        """The first of these fields that holds something."""
        return next((v for n in names if (v := self._fields.get(n)) is not None), None)

    def present(self, *names: str) -> bool:
        """Whether any of these fields is there, even as null."""
        return any(name in self._fields for name in names)

    def text(self, *names: str) -> str:
        """A text that must be there and not blank."""
        path = self._path(names)
        value = self.value(*names)
        if value is None:
            found = "null" if self.present(*names) else self._missing(names)
            self.fault(path, f"expected text, found {found}", empty=True)
            return ""
        return self._checked(value, path, required=True)

    def optional_text(self, *names: str) -> str:
        """A text that may be missing or blank."""
        path = self._path(names)
        value = self.value(*names)
        return "" if value is None else self._checked(value, path, required=False)

    def _path(self, names: Sequence[str]) -> str:
        """The name that the row uses, else the one that is mapped, else the first."""
        known = (*self._fields, *self._columns)
        return next((name for name in names if name in known), names[0])

    def _missing(self, names: Sequence[str]) -> str:
        mapped = [self._columns[name] for name in names if name in self._columns]
        return f"no column {mapped[0]!r}" if mapped else "no such field"

    def _checked(self, value: object, path: str, *, required: bool) -> str:
        if not isinstance(value, str):
            self.fault(path, f"expected text, found {describe(value)}")
            return ""
        if required and not value.strip():
            self.fault(path, "is empty", empty=True)
        if (lone := _lone_surrogate(value)) is not None:
            self.fault(path, f"holds half of a character (\\u{lone:04x} without its other half)")
        return value

    def messages(self, name: str, *, role_key: str, content_key: str) -> tuple[Message, ...]:
        """A list of turns under one field."""
        value = self.value(name)
        if not isinstance(value, list):
            self.fault(name, f"expected a list of turns, found {describe(value)}")
            return ()
        if not value:
            self.fault(name, "is an empty list", empty=True)
        for key in _TOOL_KEYS:
            if self.value(key):
                self.fault(key, NO_TOOLS)
        turns = [
            self._turn(turn, f"{name}[{i}]", role_key, content_key) for i, turn in enumerate(value)
        ]
        return tuple(turn for turn in turns if turn)

    def _turn(self, turn: object, path: str, role_key: str, content_key: str) -> Message | None:
        if not isinstance(turn, Mapping):
            self.fault(
                path, f"expected a turn with {role_key} and {content_key}, found {describe(turn)}"
            )
            return None
        if any(turn.get(key) for key in _TOOL_KEYS):
            self.fault(path, NO_TOOLS)
            return None
        role = self._role(_first(turn, role_key, "role", "from"), f"{path}.{role_key}")
        content = self._content(
            _first(turn, content_key, "content", "value"), f"{path}.{content_key}"
        )
        if role == "system" and not content.strip():
            return None
        if role and not content.strip() and not self._problems_at(path):
            self.fault(f"{path}.{content_key}", f"the {role}'s turn is empty", empty=True)
        for key, message in _NOT_OBEYED.items():
            if turn.get(key) is not None:
                self.fault(f"{path}.{key}", message)
        return Message(role, content) if role else None

    def _problems_at(self, path: str) -> bool:
        return any(problem.path.startswith(path) for problem in self._problems)

    def _role(self, value: object, path: str) -> Role | None:
        name = value.strip().lower() if isinstance(value, str) else ""
        if name in _TOOL_ROLES:
            self.fault(path, NO_TOOLS)
        elif name not in _ROLES:
            self.fault(path, f"expected system, user or assistant, found {describe(value)}")
        return _ROLES.get(name)

    def _content(self, value: object, path: str) -> str:
        if isinstance(value, list):
            return "".join(self._part(part, f"{path}[{i}]") for i, part in enumerate(value))
        if value is None:
            self.fault(path, "expected text, found null", empty=True)
            return ""
        return self._checked(value, path, required=False)

    def _part(self, part: object, path: str) -> str:
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or kind != "text":
            found = describe(part) if kind is None else f"a part of type {kind!r}"
            self.fault(path, f"expected a text part, found {found}")
            return ""
        return self._checked(part.get("text"), f"{path}.text", required=False)


def _first(turn: Mapping[str, object], *keys: str) -> object:
    return next((turn[key] for key in keys if key in turn), None)


def _lone_surrogate(text: str) -> int | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        return ord(text[fault.start])
    return None


def join_blank_line(texts: Sequence[str]) -> str:
    """The texts that are not blank, a blank line between them."""
    return "\n\n".join(text for text in texts if text.strip())
