"""What is said under labels: a question with its answer, or the turns of a dialogue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llamafarm.data.documents.blocks import Block, Code, Heading, Line
from llamafarm.data.documents.gather import Gathered, written_chars
from llamafarm.data.rows import Message, Role

# A dialogue that goes on for so many rows is divided without waiting for its end.
_ROWS_HELD = 4
_OPTION_B = re.compile(r"\s{0,20}\(?[Bb][.:)]\s")


class OpenPair:
    """A question whose answer is being read.

    heading_level: of the heading that asks it, or None; a heading ends the question by itself.
    """

    def __init__(self, number: int, most: int, heading_level: int | None = None) -> None:
        self.number = number
        self.heading_level = heading_level
        self._most = most
        self._asked: list[Line | Code] = []
        self._asked_chars = 0
        self._answer: Gathered | None = None
        self._answer_lines: list[Line] = []
        self._by_letter = False

    @property
    def has_answer(self) -> bool:
        """Whether a label said where the answer begins."""
        return self._answer is not None

    def begin_answer(self, *, by_letter: bool) -> None:
        """What follows is the answer. by_letter: said by `A:`, which may be the first of several
        options.
        """
        self._answer = Gathered(self._most)
        self._by_letter = by_letter

    def add(self, part: Line | Code) -> None:
        """What goes on the question or the answer."""
        if self._answer is None:
            if self._asked_chars <= self._most:
                self._asked.append(part)
            self._asked_chars += written_chars(part)
            return
        if self._by_letter and isinstance(part, Line):
            if len(self._answer_lines) == 1 and _OPTION_B.match(part.text) and not part.gap:
                self._take_back_options(part)
                return
            self._answer_lines = [*self._answer_lines[:1], part]
        _add(self._answer, part)

    def _take_back_options(self, second: Line) -> None:
        """`A: red`, `B: blue` are options to choose from: the answer is still to come."""
        first = self._answer_lines[0]
        self._asked += [Line(f"A: {first.text}", first.number), second]
        self._answer, self._answer_lines, self._by_letter = None, [], False

    def close(self) -> tuple[str, str]:
        """Question and answer; either may be empty.

        Without a label the answer is what follows a line that ends in a question mark, or what
        stands under a heading.
        """
        if self._answer is not None:
            return self._text(self._asked), self._answer.text()
        end = self._end_of_question()
        return self._text(self._asked[:end]), self._text(self._asked[end:])

    def _end_of_question(self) -> int:
        if self.heading_level is not None:
            return 1
        for number, part in enumerate(self._asked, start=1):
            if isinstance(part, Line) and part.text.rstrip(" *_").endswith(("?", "？")):
                return number
        return len(self._asked)

    def _text(self, parts: list[Line | Code]) -> str:
        gathered = Gathered(self._most)
        for part in parts:
            _add(gathered, part)
        return gathered.text()


@dataclass(frozen=True, slots=True)
class _Turn:
    role: Role
    said: Gathered


class OpenDialogue:
    """Turns of two speakers. It counts once an answer has followed a question; until then its
    blocks are kept, to be read as text if it never does.
    """

    def __init__(self, number: int, most: int) -> None:
        self.number = number
        self.confirmed = False
        self.blocks: list[Block] = []
        self._most = most
        self._turns: list[_Turn] = []
        self._asked = False
        self._chars = 0
        self._usual_gap: int | None = None

    @property
    def given_up(self) -> bool:
        """Whether the answer has been waited for too long."""
        return not self.confirmed and self._chars > self._most

    def ends_before(self, role: Role, gap: int) -> bool:
        """Whether this speaker begins a new dialogue: after more blank lines than are usual here,
        with a new system prompt, or because this one is longer than is worth holding.
        """
        if role == "system":
            return bool(self._turns)
        if not self.confirmed or role != "user":
            return False
        unusual = self._usual_gap is not None and gap > self._usual_gap
        return unusual or self._chars > _ROWS_HELD * self._most

    def begin_turn(self, role: Role, block: Heading | Line, gap: int) -> None:
        """A speaker begins, or begins anew."""
        if self._turns and self._usual_gap is None:
            self._usual_gap = gap
        self._asked = self._asked or role == "user"
        if self._asked and role == "assistant":
            self.confirmed = True
            self.blocks = []
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(_Turn(role, Gathered(self._most)))
        self._keep(block)

    def add(self, said: Line | Code) -> None:
        """What the speaker says at once: a paragraph of its own."""
        _add(self._turns[-1].said, said)

    def go_on(self, block: Line | Code) -> None:
        """A further line of the same speaker."""
        self._keep(block)
        self.add(block)

    def _keep(self, block: Heading | Line | Code) -> None:
        self._chars += len(block.text)
        if not self.confirmed:
            self.blocks.append(block)

    def close(self) -> Dialogue:
        """What was said, from the first question to the last answer."""
        said = [Message(turn.role, text) for turn in self._turns if (text := turn.said.text())]
        system = [message for message in said if message.role == "system"][:1]
        spoken = _merged([message for message in said if message.role != "system"])
        start = 1 if spoken and spoken[0].role == "assistant" else 0
        end = len(spoken) - (1 if spoken and spoken[-1].role == "user" else 0)
        kept = spoken[start:end]
        room = self._most - sum(len(message.content) for message in system)
        pieces = tuple((*system, *piece) for piece in _pieces(kept, room))
        return Dialogue(pieces, len(spoken) - len(kept))


@dataclass(frozen=True, slots=True)
class Dialogue:
    """pieces: one, or several where it is too long for a row, each from a question to an answer;
    outside: turns before the first question and after the last answer.
    """

    pieces: tuple[tuple[Message, ...], ...]
    outside: int


def _merged(spoken: Sequence[Message]) -> list[Message]:
    """Two turns of one speaker follow each other where the one between them was empty."""
    merged: list[Message] = []
    for message in spoken:
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, f"{merged[-1].content}\n\n{message.content}")
        else:
            merged.append(message)
    return merged


def _pieces(spoken: Sequence[Message], most: int) -> list[list[Message]]:
    """As many exchanges as fit into `most` characters, one after the other."""
    pieces: list[list[Message]] = []
    length = 0
    for asked, answer in zip(spoken[::2], spoken[1::2], strict=True):
        chars = len(asked.content) + len(answer.content)
        if not pieces or length + chars > most:
            pieces.append([])
            length = 0
        pieces[-1] += [asked, answer]
        length += chars
    return pieces


def _add(gathered: Gathered, part: Line | Code) -> None:
    if isinstance(part, Line):
        gathered.add(part)
    else:
        gathered.add_whole(part)
