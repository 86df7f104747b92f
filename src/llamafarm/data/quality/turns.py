"""Rows whose turns do not make a conversation."""

from __future__ import annotations

import re
from collections import Counter

from llamafarm.data.quality.report import Finding, Level
from llamafarm.data.quality.row import ROLE_NAMES, QualityRow
from llamafarm.data.quality.tally import Tally
from llamafarm.errors import count_of

_EDIT = "complete these rows, or delete them"
_DROP_EMPTY = "data_preprocessing.filter_empty: true drops rows without a question or an answer"

# kind: what is said after the number of rows, advice, level.
_TEXTS: dict[str, tuple[str, str, Level]] = {
    "only_system": ("with a system prompt and nothing else", _EDIT, "warning"),
    "no_user": ("without a turn of the user: nothing is asked", _EDIT, "warning"),
    "no_answer": (
        "whose last turn is not the assistant's: nothing is learnt from it",
        "add the answer, or delete that turn",
        "warning",
    ),
    "empty_turn": ("with a turn that says nothing", _DROP_EMPTY, "warning"),
    "same_role_twice": (
        "with two turns of one role in a row, which some chat templates refuse",
        "join the two turns into one",
        "warning",
    ),
    "system_late": (
        "with a system prompt after the first turn, which some chat templates refuse",
        "put it first, or write it into the question",
        "notice",
    ),
    "assistant_first": (
        "that begin with the assistant, which some chat templates refuse",
        "put the question before it, or delete the first turn",
        "notice",
    ),
}
# Most rows are one of these, in which nothing can be wrong.
_USUAL = ("ua", "sua")
_TWICE = re.compile("ss|uu|aa")


def turn_faults(roles: str) -> tuple[str, ...]:
    """Kinds of fault in an order of roles, one letter of ROLE_NAMES a turn."""
    spoken = roles.lstrip("s")
    if not spoken:
        return ("only_system",)
    found = []
    if "u" not in roles:
        found.append("no_user")
    elif spoken[0] == "a":
        found.append("assistant_first")
    if roles[-1] != "a":
        found.append("no_answer")
    if "s" in spoken:
        found.append("system_late")
    if _TWICE.search(roles):
        found.append("same_role_twice")
    return tuple(found)


class TurnsCheck:
    """Counts turns by role, and rows by what is wrong with their order."""

    def __init__(self) -> None:
        self._usual = dict.fromkeys(_USUAL, 0)
        self._turns: Counter[str] = Counter()
        self._tallies = {kind: Tally() for kind in _TEXTS}

    def see(self, row: QualityRow) -> None:
        """One more row."""
        if row.blank:
            self._tallies["empty_turn"].add(row.source, row.text)
        if row.roles in self._usual:
            self._usual[row.roles] += 1
        elif row.roles:
            self._turns.update(row.roles)
            for kind in turn_faults(row.roles):
                self._tallies[kind].add(row.source, row.text)

    def turns(self) -> tuple[tuple[str, int], ...]:
        """Turns of each role that there is."""
        turns = self._turns.copy()
        for roles, rows in self._usual.items():
            turns.update(dict.fromkeys(roles, rows))
        return tuple((name, turns[letter]) for letter, name in ROLE_NAMES.items() if turns[letter])

    def findings(self) -> list[Finding]:
        """The faults that there are."""
        return [
            tally.finding(kind, f"{count_of(tally.rows, 'row')} {text}", advice, level)
            for kind, (text, advice, level) in _TEXTS.items()
            if (tally := self._tallies[kind]).rows
        ]
