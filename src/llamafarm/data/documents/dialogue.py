"""What is said under labels: a question with its answer, or the turns of a dialogue."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llamafarm.data.documents.blocks import Block, Code, Heading, Line
from llamafarm.data.documents.gather import Gathered
from llamafarm.data.rows import Message, Role

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
            self._asked_chars += len(part.text)
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
        self.blocks: list[Block] = []
        self._most = most
        self._turns: list[_Turn] = []
        self._asked = False
        self._block_chars = 0
        self._usual_gap: int | None = None
        self.confirmed = False

    @property
    def given_up(self) -> bool:
        """Whether the answer has been waited for too long."""
        return not self.confirmed and self._block_chars > self._most

    def ends_before(self, role: Role, gap: int) -> bool:
        """Whether this speaker begins a new dialogue: after more blank lines than are usual here,
        or with a new system prompt.
        """
        if role == "system":
            return bool(self._turns)
        unusual = self._usual_gap is not None and gap > self._usual_gap
        return self.confirmed and role == "user" and unusual

    def begin_turn(self, role: Role, block: Heading | Line, gap: int) -> None:
        """A speaker begins."""
        if self._turns and self._usual_gap is None:
            self._usual_gap = gap
        self._turns.append(_Turn(role, Gathered(self._most)))
        self._asked = self._asked or role == "user"
        if self._asked and role == "assistant":
            self.confirmed = True
            self.blocks = []
        self._keep(block)

    def add(self, said: Line | Code) -> None:
        """What the speaker says."""
        _add(self._turns[-1].said, said)

    def go_on(self, block: Line | Code) -> None:
        """A further line of the same speaker."""
        self._keep(block)
        self.add(block)

    def _keep(self, block: Block) -> None:
        if not self.confirmed:
            self.blocks.append(block)
            self._block_chars += len(block.text) if isinstance(block, Line | Code) else 0

    def close(self) -> tuple[tuple[Message, ...], int]:
        """The messages from the first question to the last answer, and how many turns stand outside
        of them.
        """
        merged: list[Message] = []
        for turn in self._turns:
            text = turn.said.text()
            if not text:
                continue
            if merged and merged[-1].role == turn.role:
                merged[-1] = Message(turn.role, f"{merged[-1].content}\n\n{text}")
            else:
                merged.append(Message(turn.role, text))
        system = [message for message in merged if message.role == "system"][:1]
        spoken = [message for message in merged if message.role != "system"]
        start = 1 if spoken and spoken[0].role == "assistant" else 0
        end = len(spoken) - (1 if spoken and spoken[-1].role == "user" else 0)
        kept = spoken[start:end]
        return (*system, *kept), len(spoken) - len(kept)


def _add(gathered: Gathered, part: Line | Code) -> None:
    if isinstance(part, Line):
        gathered.add(part)
    else:
        gathered.add_whole(part.text, part.number)
