"""What the first pass keeps of every row: numbers in arrays, and shingles on disk.

About 50 bytes a row stay in memory, whatever the rows say. From this the split is made (equal rows,
near duplicates and one question stay on one side), and leakage between files is told.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from llamafarm.data.clean import content_key
from llamafarm.data.groups import merge_groups
from llamafarm.data.near.search import RowPairs, near_pairs
from llamafarm.data.near.shingles import ShingleStore
from llamafarm.data.near.words import plain_form
from llamafarm.data.rows import Conversation, Message

Progress = Callable[[int, int], None]
Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

_BATCH_ROWS = 1000
# A question that this many rows ask, and this share of all, is the task itself ("Write a joke"):
# it does not tell one row from another.
COMMON_PROMPT_ROWS = 20
COMMON_PROMPT_SHARE = 0.05
_WORD = re.compile(r"\w+")
_NO_WORD = {code: " " for code in range(128) if not _WORD.match(chr(code))}


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What is kept of one row.

    content: digest of what it says; normal: the same without case, punctuation and Unicode form;
    prompt: of everything before the last answer, 0 where there is none; texts: of its turns but
    the system prompt.
    """

    content: int
    normal: int
    prompt: int
    texts: tuple[str, ...]


def facts_of(conversation: Conversation) -> RowFacts:
    """What splitting and leakage need to know of a conversation."""
    parts = _parts(conversation)
    plain = [f"{role}\0{_plain(text)}" for role, text in parts]
    roles = [role for role, _ in parts]
    last = len(roles) - 1 - roles[::-1].index("assistant") if "assistant" in roles else 0
    prompt = _digest(plain[:last]) or 1 if "user" in roles[:last] else 0
    content = int.from_bytes(content_key(conversation)[:8], "little")
    texts = tuple(text for role, text in parts if role != "system")
    return RowFacts(content, _digest(plain), prompt, texts)


def facts_of_fields(fields: Mapping[str, object], key: bytes) -> RowFacts:
    """The same for a record of no known format, which has texts but no turns."""
    texts = tuple(value for value in fields.values() if isinstance(value, str))
    content = int.from_bytes(key[:8], "little")
    return RowFacts(content, content, 0, texts)


def _parts(conversation: Conversation) -> list[tuple[str, str]]:
    """Every text of a row with the role that it has there."""
    if conversation.segments:
        return [("segment", segment.text) for segment in conversation.segments]
    if not conversation.messages:
        return [("text", conversation.text)]
    return [(message.role, _said(message)) for message in conversation.messages]


def _said(message: Message) -> str:
    if not message.tool_calls:
        return message.content
    calls = " ".join(f"{call.name} {dict(call.arguments)}" for call in message.tool_calls)
    return f"{message.content} {calls}".strip()


def _plain(text: str) -> str:
    """Only the words, without case; a text without any word stays as it is."""
    if text.isascii():
        return " ".join(text.lower().translate(_NO_WORD).split()) or text.strip()
    folded = plain_form(text)
    return " ".join(_WORD.findall(folded)) or folded.strip()


def _digest(parts: Iterable[str]) -> int:
    text = "\x1e".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def label_key(label: str) -> int:
    """A value of `group_by` or `stratify_by` as a number."""
    return _digest((label,))


@dataclass(frozen=True, slots=True)
class Survey:
    """All good rows of all files, in the order they were read; one value a row.

    source: number of the file; position: of the row among all items of its file, from 0; line: as
    RowRef; content, normal, prompt: see RowFacts; group, stratum: keys of labels, None when not
    asked for.
    """

    source: npt.NDArray[np.int16]
    position: npt.NDArray[np.uint32]
    line: npt.NDArray[np.uint32]
    content: Keys
    normal: Keys
    prompt: Keys
    group: Keys | None
    stratum: Keys | None
    store: ShingleStore

    def __len__(self) -> int:
        return len(self.source)

    def rows_of(self, source: int) -> Rows:
        """Numbers of the rows of one file."""
        return np.flatnonzero(self.source == source)


class Surveyor:
    """Takes rows one at a time. A context manager: the store is closed with the block."""

    def __init__(self, scratch: Path, *, grouped: bool = False, stratified: bool = False) -> None:
        self._store = ShingleStore(scratch)
        self._source, self._position, self._line = array("h"), array("I"), array("I")
        self._content, self._normal, self._prompt = array("Q"), array("Q"), array("Q")
        self._group = array("Q") if grouped else None
        self._stratum = array("Q") if stratified else None
        self._texts: list[tuple[str, ...]] = []

    def __enter__(self) -> Surveyor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._store.close()

    def __len__(self) -> int:
        return len(self._source)

    def add(
        self,
        facts: RowFacts,
        *,
        source: int,
        position: int,
        line: int,
        group: str = "",
        stratum: str = "",
    ) -> None:
        """One good row. group, stratum: looked at only where the survey was asked to."""
        self._source.append(source)
        self._position.append(position)
        self._line.append(line)
        self._content.append(facts.content)
        self._normal.append(facts.normal)
        self._prompt.append(facts.prompt)
        if self._group is not None:
            self._group.append(label_key(group))
        if self._stratum is not None:
            self._stratum.append(label_key(stratum))
        self._texts.append(facts.texts)
        if len(self._texts) >= _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._texts:
            self._store.add(self._texts)
            self._texts = []

    def finish(self) -> Survey:
        """All rows that were added; usable until the block ends."""
        self._flush()
        self._store.finish()
        return Survey(
            np.frombuffer(self._source, np.int16),
            np.frombuffer(self._position, np.uint32),
            np.frombuffer(self._line, np.uint32),
            np.frombuffer(self._content, np.uint64),
            np.frombuffer(self._normal, np.uint64),
            np.frombuffer(self._prompt, np.uint64),
            None if self._group is None else np.frombuffer(self._group, np.uint64),
            None if self._stratum is None else np.frombuffer(self._stratum, np.uint64),
            self._store,
        )


def first_of_each(keys: Keys) -> Rows:
    """Rows whose key no earlier row has, ascending."""
    _, first = np.unique(keys, return_index=True)
    return np.sort(first).astype(np.int64)


def near_duplicates(survey: Survey, progress: Progress | None = None) -> RowPairs:
    """Near duplicates among rows that differ after normalisation; one row stands for its copies."""
    return near_pairs(survey.store, first_of_each(survey.normal), progress=progress)


def distinctive_prompts(survey: Survey) -> Keys:
    """The prompt key of each row; 0 for none, and for a prompt that so many rows share that it
    says nothing about a row.
    """
    values, counts = np.unique(survey.prompt, return_counts=True)
    least = max(COMMON_PROMPT_ROWS, COMMON_PROMPT_SHARE * len(survey))
    common = values[counts >= least]
    keys = survey.prompt.copy()
    keys[np.isin(keys, common)] = 0
    return keys


def groups_of(survey: Survey, rows: Rows, pairs: RowPairs) -> Rows:
    """A group number for each of these rows: those that say the same, nearly the same, answer the
    same question, or have the same group label, are one group.
    """
    labellings: list[npt.NDArray[np.uint64]] = [survey.normal[rows]]
    prompts = distinctive_prompts(survey)[rows]
    if prompts.any():
        labellings.append(np.ma.masked_array(prompts, prompts == 0))
    if survey.group is not None:
        labellings.append(survey.group[rows])
    return merge_groups(len(rows), labellings, [_within(rows, pairs)])


def _within(rows: Rows, pairs: RowPairs) -> tuple[Rows, Rows]:
    """Pairs of which both rows are among `rows` (ascending), as indices into it."""
    if not len(rows) or not len(pairs.first):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    places = []
    both = np.ones(len(pairs.first), dtype=np.bool_)
    for side in (pairs.first, pairs.second):
        place = np.minimum(np.searchsorted(rows, side), len(rows) - 1)
        both &= rows[place] == side
        places.append(place)
    return places[0][both].astype(np.int64), places[1][both].astype(np.int64)
