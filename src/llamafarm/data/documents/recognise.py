"""Blocks of a document to rows: questions with answers, dialogues, tables, sections, passages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from llamafarm.data.documents.blocks import (
    NO_HEADING,
    Block,
    Code,
    Divider,
    Heading,
    Line,
    Table,
)
from llamafarm.data.documents.dialogue import OpenDialogue, OpenPair
from llamafarm.data.documents.found import FoundRow, asked_and_answered
from llamafarm.data.documents.gather import Passages
from llamafarm.data.documents.labels import (
    Label,
    LabelKind,
    question_columns,
    read_label,
    read_speaker_heading,
    split_pairs,
)
from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.passages import Part
from llamafarm.data.rows import Role

PAIR = "question with answer"
DIALOGUE = "dialogue"
TABLE_ROW = "table row"
SECTION = "section"
TEXT = "text"
LOOKED_FOR = (
    "looked for Q: and A: lines, dialogues (User:, Assistant:), tables with a question and an "
    "answer column, headings with text under them, and paragraphs"
)

UNANSWERED = "question without an answer"
NO_EXCHANGE = "dialogue without a question and its answer"
BARE_HEADING = "heading without text under it"
UNASKED = "answer without a question"
OUTSIDE_TURN = "turns before the first question or after the last answer left out"
DIVIDED_DIALOGUE = "long dialogues divided before a question"
DIVIDED = "long sections divided between paragraphs"

_TEXT_CHARS = 2_000
_SECTION_CHARS = 4_000


def recognise(blocks: Iterable[Block], most: int, ledger: FileLedger) -> Iterator[FoundRow]:
    """The rows of a document, in its order. most: characters that a row may have."""
    recogniser = _Recogniser(most, ledger)
    for block in blocks:
        recogniser.feed(block)
        yield from recogniser.take()
    recogniser.finish()
    yield from recogniser.take()


class _Recogniser:
    """Reads block after block; what is open decides what the next one means."""

    def __init__(self, most: int, ledger: FileLedger) -> None:
        self._most = most
        self._ledger = ledger
        self._path: tuple[Heading, ...] = ()
        self._bare: Heading | None = None
        self._passages = self._new_passages()
        self._given = 0
        self._open: OpenPair | OpenDialogue | None = None
        self._inside_line = False
        self._ready: list[FoundRow] = []

    def take(self) -> list[FoundRow]:
        """The rows that are complete."""
        ready, self._ready = self._ready, []
        return ready

    def finish(self) -> None:
        """The document ends."""
        self._close()
        self._leave_sections(0)

    def feed(self, block: Block) -> None:
        """The next block."""
        if isinstance(self._open, OpenDialogue) and self._open.given_up:
            self._close()
        if not isinstance(block, Heading | Divider):
            self._bare = None
        match block:
            case Line():
                self._line(block)
            case Heading():
                self._heading(block)
            case Table():
                self._table(block)
            case Code():
                self._go_on(block)
            case Divider():
                self._close()
                if block.level != NO_HEADING:
                    self._leave_sections(block.level)

    def _line(self, line: Line) -> None:
        label = None if self._inside_line else read_label(line.text)
        self._inside_line = line.goes_on
        if label is None or not self._is_meant(label, line):
            self._go_on(line)
        elif label.kind == "question":
            self._pairs_on_line(label, line)
        else:
            self._labelled(label, line)

    def _is_meant(self, label: Label, line: Line) -> bool:
        """Whether a label means something here: an answer needs a question, for example."""
        pair = self._open if isinstance(self._open, OpenPair) else None
        if label.kind in ("answer", "input"):
            return pair is not None and not pair.has_answer
        if label.kind == "question":
            return True
        return pair is None or (line.gap > 0 and label.kind != "assistant")

    def _pairs_on_line(self, label: Label, line: Line) -> None:
        """`Q: …? A: ….` on one line, perhaps several times."""
        first, *others = split_pairs(label.rest)
        self._labelled(replace(label, rest=first), line)
        for text in others:
            part = read_label(text)
            if part is not None and self._is_meant(part, line):
                self._labelled(part, replace(line, text=text))
            else:
                self._go_on(Line(text, line.number, goes_on=line.goes_on))

    def _labelled(self, label: Label, line: Line) -> None:
        said = Line(label.rest, line.number, goes_on=line.goes_on)
        match label.kind:
            case "question":
                self._close()
                self._open = OpenPair(line.number, self._most)
                self._open.add(said)
            case "answer" if isinstance(self._open, OpenPair):
                first = line.text.lstrip("*_ >-")[:2]
                self._open.begin_answer(by_letter=first in ("A:", "A.", "A)"))
                self._add_if_any(said)
            case "input":
                self._add_if_any(replace(said, gap=1))
            case "user" | "assistant" | "system":
                self._speaker(label.kind, line, line.gap)
                self._add_if_any(replace(said, gap=1))

    def _add_if_any(self, said: Line) -> None:
        if said.text and self._open is not None:
            self._open.add(said)

    def _speaker(self, role: Role, block: Line | Heading, gap: int) -> None:
        dialogue = self._open
        if not isinstance(dialogue, OpenDialogue) or dialogue.ends_before(role, gap):
            self._close()
            dialogue = self._open = OpenDialogue(block.number, self._most)
        dialogue.begin_turn(role, block, gap)

    def _heading(self, heading: Heading) -> None:
        kind = read_speaker_heading(heading.text)
        label = read_label(heading.text)
        if kind in ("user", "assistant", "system"):
            self._speaker(kind, heading, gap=1)
        elif self._labels_pair(kind or (label.kind if label else None)):
            self._pair_heading(kind, label, heading)
        elif isinstance(self._open, OpenPair) and self._is_inside(self._open, heading):
            self._open.add(Line("#" * heading.level + " " + heading.text, heading.number, gap=1))
        else:
            self._close()
            self._enter_section(heading)

    def _labels_pair(self, kind: LabelKind | None) -> bool:
        if kind == "question":
            return True
        is_open = isinstance(self._open, OpenPair) and not self._open.has_answer
        return kind in ("answer", "input") and is_open

    def _pair_heading(self, kind: LabelKind | None, label: Label | None, heading: Heading) -> None:
        """`### Q: …?`, `### Response:`"""
        said = "" if kind is not None or label is None else label.rest
        kind = kind or (label.kind if label else None)
        line = Line(said, heading.number)
        if kind == "question":
            self._close()
            self._leave_sections(heading.level)
            asks = heading.level if said else None
            self._open = OpenPair(heading.number, self._most, asks)
        elif kind == "answer" and isinstance(self._open, OpenPair):
            self._open.begin_answer(by_letter=False)
        self._add_if_any(line)

    def _is_inside(self, pair: OpenPair, heading: Heading) -> bool:
        return pair.heading_level is not None and heading.level > pair.heading_level

    def _table(self, table: Table) -> None:
        columns = question_columns(table.header)
        if columns is None:
            self._go_on(Code(_as_markdown(table), table.number))
            return
        self._close()
        self._end_passages()
        for row in table.rows:
            question, answer = (row.cells[i] if i < len(row.cells) else "" for i in columns)
            self._pair(TABLE_ROW, row.number, question.strip(), answer.strip())

    def _go_on(self, block: Line | Code) -> None:
        """What has no label belongs to what is open, or to the section."""
        match self._open:
            case OpenPair():
                self._open.add(block)
            case OpenDialogue():
                self._open.go_on(block)
            case None:
                self._plain(block)

    def _plain(self, block: Block) -> None:
        match block:
            case Line():
                self._passages.add(block)
            case Code():
                self._passages.add_whole(block.text, block.number)
            case Heading():
                self._enter_section(block)
            case _:
                return
        self._give(self._passages.take())

    def _close(self) -> None:
        closing, self._open = self._open, None
        if isinstance(closing, OpenPair):
            self._end_passages()
            self._pair(PAIR, closing.number, *closing.close())
        elif isinstance(closing, OpenDialogue):
            self._close_dialogue(closing)

    def _close_dialogue(self, dialogue: OpenDialogue) -> None:
        if not dialogue.confirmed:
            for block in dialogue.blocks:
                self._plain(block)
            return
        self._end_passages()
        said = dialogue.close()
        if not said.pieces:
            self._ledger.dropped(NO_EXCHANGE, dialogue.number)
        elif said.outside:
            self._ledger.changed(OUTSIDE_TURN, dialogue.number)
        for piece in said.pieces:
            self._ready.append(FoundRow(DIALOGUE, dialogue.number, piece))
        for _ in said.pieces[1:]:
            self._ledger.changed(DIVIDED_DIALOGUE, dialogue.number)

    def _pair(self, kind: str, number: int, question: str, answer: str) -> None:
        if question and answer:
            self._ready.append(asked_and_answered(kind, number, question, answer))
        elif question or answer:
            why = UNANSWERED if question else UNASKED
            self._ledger.dropped(why, number, _shortened(question or answer))

    def _enter_section(self, heading: Heading) -> None:
        self._leave_sections(heading.level)
        self._path = (*self._path, heading)
        self._passages = self._new_passages()
        self._bare = heading

    def _leave_sections(self, level: int) -> None:
        """End the sections of this level and below."""
        self._end_passages()
        if self._bare is not None and self._bare.level >= level:
            self._ledger.dropped(
                BARE_HEADING, self._bare.number, _shortened(_path_text(self._path))
            )
        self._bare = None
        self._path = tuple(heading for heading in self._path if heading.level < level)
        self._passages = self._new_passages()

    def _new_passages(self) -> Passages:
        limit = _SECTION_CHARS if self._path else _TEXT_CHARS
        self._given = 0
        return Passages(min(limit, self._most))

    def _end_passages(self) -> None:
        self._give(self._passages.finish())

    def _give(self, passages: list[Part]) -> None:
        for passage in passages:
            if not self._path:
                self._ready.append(FoundRow(TEXT, passage.number, text=passage.text))
                continue
            self._given += 1
            title, number = _title(self._path), self._path[-1].number
            if self._given > 1:
                title, number = f"{title} (part {self._given})", passage.number
                self._ledger.changed(DIVIDED, number)
            self._ready.append(asked_and_answered(SECTION, number, title, passage.text))


def _title(path: tuple[Heading, ...]) -> str:
    """The headings from the highest to the lowest; a question stands for itself."""
    lowest = path[-1].text
    return lowest if lowest.endswith(("?", "？")) else _path_text(path)


def _path_text(path: tuple[Heading, ...]) -> str:
    return " > ".join(heading.text for heading in path)


def _as_markdown(table: Table) -> str:
    rows = [table.header, tuple("---" for _ in table.header), *(row.cells for row in table.rows)]
    lines = [
        "| " + " | ".join(c.replace("\n", " ").replace("|", "\\|") for c in row) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def _shortened(text: str) -> str:
    first = text.split("\n", 1)[0]
    return first if len(first) <= 60 else first[:59] + "…"
