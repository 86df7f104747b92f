"""Takes texts out of a record and notes every fault on the way, so that a row's faults come all at
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamafarm.data.json_reader import describe
from llamafarm.data.records import BadRow, Record
from llamafarm.data.rows import Conversation, Message
from llamafarm.data.tool_calls import read_tools
from llamafarm.errors import Problem

_MEDIA = ("images", "videos", "audios")
# Names that a column may have which are of a row's turns, not of the row.
TURN_FIELDS = ("role", "content")


class RowReader:
    """One record under our names.

    columns: our name → the file's; keys are compared without case and spaces. roles: our role → the
    file's name for it.
    """

    def __init__(
        self,
        record: Record,
        columns: Mapping[str, str],
        example: str,
        roles: Mapping[str, str] | None = None,
    ) -> None:
        self.source = record.source
        self.columns = columns
        self.roles = {name.strip().lower(): role for role, name in (roles or {}).items()}
        self._example = example
        self._fields = {str(k).strip().lower(): v for k, v in record.fields.items()}
        self._names = record.fields if len(self._fields) < len(record.fields) else ()
        of_row = {ours: name for ours, name in columns.items() if ours not in TURN_FIELDS}
        for name in (*of_row, *of_row.values()):
            # What is mapped is read under its new name only: no text is asked for twice.
            self._fields.pop(name.strip().lower(), None)
        for ours, theirs in of_row.items():
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

    @property
    def fault_count(self) -> int:
        """Faults noted so far."""
        return len(self._problems)

    def faults_at(self, path: str) -> bool:
        """Whether a fault was noted at this field or inside it."""
        return any(problem.path.startswith(path) for problem in self._problems)

    def filled(self, *names: str) -> str | None:
        """The name of the field that `value` reads; None where all are missing or null."""
        return next((n for n in self._mapped_first(names) if self._fields.get(n) is not None), None)

    def _mapped_first(self, names: Sequence[str]) -> Sequence[str]:
        """A column that somebody named says more than a usual name."""
        return sorted(names, key=lambda name: name not in self.columns) if self.columns else names

    def value(self, *names: str) -> object:
        """The first of these fields that holds something, those that are mapped before others."""
        found = self.filled(*names)
        if found is None:
            return None
        if self._names and found not in self.columns:
            self._refuse_ambiguous(found)
        return self._fields[found]

    def _refuse_ambiguous(self, name: str) -> None:
        """A field that stands twice, but for case and spaces: one of the two would be lost."""
        same = [key for key in map(str, self._names) if key.strip().lower() == name]
        if len(same) > 1 and not self.faults_at(name):
            shown = " and ".join(f'"{key}"' for key in same[:3])
            self.fault(name, f"stands more than once: {shown}")

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
        return self.checked_text(value, path, required=True)

    def optional_text(self, *names: str) -> str:
        """A text that may be missing or blank."""
        path = self._path(names)
        value = self.value(*names)
        return "" if value is None else self.checked_text(value, path, required=False)

    def _path(self, names: Sequence[str]) -> str:
        """The name that the row uses, else the one that is mapped, else the first."""
        if (found := self.filled(*names)) is not None:
            return found
        ordered = self._mapped_first(names)
        return next((name for name in ordered if name in self._fields), ordered[0])

    def _missing(self, names: Sequence[str]) -> str:
        mapped = [self.columns[name] for name in names if name in self.columns]
        return f"no column {mapped[0]!r}" if mapped else "no such field"

    def checked_text(self, value: object, path: str, *, required: bool = False) -> str:
        """A value that must be a text; an empty one where it is not."""
        if not isinstance(value, str):
            self.fault(path, f"expected text, found {describe(value)}")
            return ""
        if required and not value.strip():
            self.fault(path, "is empty", empty=True)
        if (lone := _lone_surrogate(value)) is not None:
            self.fault(path, f"holds half of a character (\\u{lone:04x} without its other half)")
        return value

    def conversation(self, messages: tuple[Message, ...]) -> Conversation:
        """These turns, with the tools that the row describes.

        A row that was marked as a bad example, or that needs pictures or sound, is a fault.
        """
        if self.value("label") is False:
            self.fault("label", "marked as undesirable: not trained")
        for name in _MEDIA:
            if self.value(name):
                self.fault(name, "pictures, films and sound are not trained by this version")
        name = "functions" if self.value("tools") is None else "tools"
        tools = read_tools(self.value(name), name, self.fault)
        return Conversation(self.source, messages=messages, tools=tools)


def _lone_surrogate(text: str) -> int | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        return ord(text[fault.start])
    return None


def join_blank_line(texts: Sequence[str]) -> str:
    """The texts that are not blank, a blank line between them."""
    return "\n\n".join(text for text in texts if text.strip())
