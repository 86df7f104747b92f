"""Collects the lines of an answer, a turn or a section until it is complete."""

from __future__ import annotations

from llamafarm.data.documents.blocks import Code, Line
from llamafarm.data.documents.passages import Part, cut, paragraph_text

# A paragraph is cut, so that it need not be held, where it is so many passages long.
_PASSAGES_HELD = 8
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", '."', ".”", ".)", ":", ";")


def written_chars(part: Line | Code) -> int:
    """Characters of a line that are certainly written, without white space around it; of code,
    all.
    """
    return len(part.text.strip() if isinstance(part, Line) else part.text)


class Gathered:
    """One text. Of a text longer than `most` characters, which no row can hold, the rest is not
    kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[Part] = []
        self._lines: list[Line] = []
        self._chars = 0

    def __bool__(self) -> bool:
        return bool(self._parts or self._lines)

    def add(self, line: Line) -> None:
        """A line; it begins a paragraph where blank lines are before it."""
        if line.gap:
            self._end_paragraph()
        if line.text.strip() and self._has_room(line):
            self._lines.append(line)

    def add_whole(self, code: Code) -> None:
        """Code, or a table: a paragraph of its own, kept as it is."""
        self._end_paragraph()
        if self._has_room(code):
            self._parts.append(Part(code.text, code.number, whole=True))

    def text(self) -> str:
        """Everything so far, a blank line between paragraphs."""
        self._end_paragraph()
        return "\n\n".join(part.text for part in self._parts)

    def _has_room(self, part: Line | Code) -> bool:
        """Nothing is left out before the text is too long, so that its row is refused."""
        had_room = self._chars <= self._most
        self._chars += written_chars(part)
        return had_room

    def _end_paragraph(self) -> None:
        if self._lines:
            self._parts.append(Part(paragraph_text(self._lines), self._lines[0].number))
            self._lines = []


class Passages:
    """Text under one heading, given out in passages of about `limit` characters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: list[Line] = []
        self._line_chars = 0
        self._pending: list[Part] = []
        self._pending_chars = 0
        self._ready: list[Part] = []

    def add(self, line: Line) -> None:
        """A line; it begins a paragraph where blank lines are before it."""
        if line.gap:
            self._end_paragraph()
        self._lines.append(line)
        self._line_chars += len(line.text)
        if self._line_chars > _PASSAGES_HELD * self._limit:
            self._cut_paragraph()

    def add_whole(self, text: str, number: int) -> None:
        """Code, or a table: never cut."""
        self._end_paragraph()
        self._push(Part(text, number, whole=True))

    def take(self) -> list[Part]:
        """The passages that are complete."""
        ready, self._ready = self._ready, []
        return ready

    def finish(self) -> list[Part]:
        """All that is left."""
        self._end_paragraph()
        self._end_passage()
        return self.take()

    def _end_paragraph(self) -> None:
        if self._lines:
            self._push_all(self._lines)
            self._lines, self._line_chars = [], 0

    def _cut_paragraph(self) -> None:
        """Give out the sentences of a long paragraph that are complete."""
        lines = self._lines
        if lines[-1].goes_on:
            *complete, last = cut(Part(paragraph_text(lines), lines[0].number), self._limit)
            for part in complete:
                self._push(part)
            rest = [Line(last.text + " ", lines[-1].number, goes_on=True)]
            if not complete:  # one sentence that is too long for any row
                self._push(last)
                rest = []
        else:
            ends = [
                i for i, line in enumerate(lines) if line.text.rstrip().endswith(_SENTENCE_ENDS)
            ]
            end = ends[-1] + 1 if ends else len(lines)
            self._push_all(lines[:end])
            rest = lines[end:]
        self._lines, self._line_chars = rest, sum(len(line.text) for line in rest)

    def _push_all(self, lines: list[Line]) -> None:
        for part in cut(Part(paragraph_text(lines), lines[0].number), self._limit):
            self._push(part)

    def _push(self, part: Part) -> None:
        if self._pending and self._pending_chars + len(part.text) > self._limit:
            self._end_passage()
        self._pending.append(part)
        self._pending_chars += len(part.text) + 2

    def _end_passage(self) -> None:
        if self._pending:
            text = "\n\n".join(part.text for part in self._pending)
            self._ready.append(Part(text, self._pending[0].number))
            self._pending, self._pending_chars = [], 0
