"""A row's list of turns: who speaks, what is said, which tools are called, what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby, takewhile
from operator import itemgetter
from typing import Literal, get_args

from llamafarm.data.json_reader import describe
from llamafarm.data.row_reader import RowReader
from llamafarm.data.rows import Message, ToolCall
from llamafarm.data.tool_calls import read_call_turn, read_calls

TurnRole = Literal["user", "assistant", "system", "tool", "function_call"]
TURN_ROLES: tuple[TurnRole, ...] = get_args(TurnRole)
ROLES: Mapping[str, TurnRole] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "ipython": "tool",
    "function_call": "function_call",
    "tool_call": "function_call",
}
_TRAINED_KEYS = ("train", "train_on_turn", "training")
_NOT_OBEYED = {
    "reasoning_content": "reasoning is read from the content: write it there, as <think>…</think>",
    "thinking": "reasoning is read from the content: write it there, as <think>…</think>",
    "train_detail": "parts of a turn cannot be left out of training: give the whole turn train",
    "training_detail": "parts of a turn cannot be left out of training: give the whole turn train",
}

_TOGETHER = "calls that are answered together stand in one turn"


@dataclass(frozen=True, slots=True)
class _Turn:
    """answers: the id of the call that a tool's turn answers; empty where none is given."""

    message: Message
    path: str
    answers: str = ""


def read_turns(row: RowReader, name: str) -> tuple[Message, ...]:
    """The turns under one field: a list, or a single turn alone.

    Answers of tools come in the order of the calls, also where the row has them in another: most
    templates write no ids, so that the order alone says which answer belongs to which call.
    """
    value = row.value(name)
    if isinstance(value, Mapping):
        found = [_turn(row, value, name)]
    elif isinstance(value, list):
        if not value:
            row.fault(name, "is an empty list", empty=True)
        found = [_turn(row, turn, f"{name}[{i}]") for i, turn in enumerate(value)]
    else:
        row.fault(name, f"expected a list of turns, found {describe(value)}")
        return ()
    turns = [turn for turn in found if turn]
    return tuple(turn.message for turn in _in_order_of_calls(row, turns))


def _turn(row: RowReader, turn: object, path: str) -> _Turn | None:
    keys = ("from", "value") if path.startswith("conversation") else ("role", "content")
    if not isinstance(turn, Mapping):
        row.fault(path, f"expected a turn with {' and '.join(keys)}, found {describe(turn)}")
        return None
    faults_before = row.fault_count
    role = _role(row, turn, path, keys[0])
    for key, message in _NOT_OBEYED.items():
        value = turn.get(key)
        # Exports write it, without anything in it, in turns that have no reasoning.
        blank = isinstance(value, str) and not value.strip()
        if value is not None and not blank:
            row.fault(f"{path}.{key}", message)
    trained = _trained(row, turn, path, role)
    content_key = _key(row, turn, "content", (keys[1], "content", "value"))
    content_path = f"{path}.{content_key}"
    value = turn.get(content_key)
    if role == "function_call":
        calls = read_call_turn(value, content_path, row.fault)
        return _Turn(Message("assistant", "", trained=trained, tool_calls=calls), path)
    faults_before_calls = row.fault_count
    calls = _calls(row, turn, path, role)
    # Where the calls cannot be read, that alone is the turn's fault.
    has_calls = bool(calls) or row.fault_count > faults_before_calls
    content = "" if value is None and has_calls else _content(row, value, content_path)
    if role is None or (role == "system" and not content.strip()):
        return None
    if not (content.strip() or calls or role == "tool" or row.fault_count > faults_before):
        row.fault(content_path, f"the {role}'s turn is empty", empty=True)
    if role != "tool":
        return _Turn(Message(role, content, trained=trained, tool_calls=calls), path)
    name = _optional_text(row, turn, path, "name")
    answers = _optional_text(row, turn, path, "tool_call_id")
    return _Turn(Message("tool", content, name=name), path, answers)


def _key(row: RowReader, turn: Mapping[str, object], ours: str, names: Sequence[str]) -> str:
    """The name of a turn's field: the mapped one, else the first that the turn has."""
    if ours in row.columns:
        return row.columns[ours]
    return next((name for name in names if name in turn), names[0])


def _role(row: RowReader, turn: Mapping[str, object], path: str, first: str) -> TurnRole | None:
    key = _key(row, turn, "role", (first, "role", "from"))
    value = turn.get(key)
    name = value.strip().lower() if isinstance(value, str) else ""
    role = row.roles.get(name) or ROLES.get(name)
    if role in TURN_ROLES:
        return role
    if key not in turn:
        keys = ", ".join(str(key) for key in turn)[:80]
        row.fault(f"{path}.{key}", f"no such field; the turn has {keys or 'none'}")
    else:
        row.fault(
            f"{path}.{key}", f"expected system, user, assistant or tool, found {describe(value)}"
        )
    return None


def _trained(row: RowReader, turn: Mapping[str, object], path: str, role: TurnRole | None) -> bool:
    """Whether an assistant's turn is learnt: OpenAI's weight, axolotl's train."""
    said: dict[str, bool] = {}
    weight = turn.get("weight")
    if weight is not None:
        if isinstance(weight, bool) or weight not in (0, 1):
            row.fault(f"{path}.weight", f"expected 0 or 1, found {describe(weight)}")
        else:
            said["weight"] = weight == 1
    for key in _TRAINED_KEYS:
        value = turn.get(key)
        if isinstance(value, bool):
            said[key] = value
        elif value is not None:
            row.fault(f"{path}.{key}", f"expected true or false, found {describe(value)}")
    if role in ("assistant", "function_call"):
        if len(set(said.values())) > 1:
            row.fault(path, f"{' and '.join(said)} contradict each other")
        return all(said.values())
    for key, on in said.items():
        if on:
            row.fault(f"{path}.{key}", "only the assistant's turns are trained")
    return True


def _calls(
    row: RowReader, turn: Mapping[str, object], path: str, role: TurnRole | None
) -> tuple[ToolCall, ...]:
    """Calls beside the content: OpenAI's `tool_calls`, or its older `function_call`."""
    calls: tuple[ToolCall, ...] = ()
    if turn.get("tool_calls"):
        calls = read_calls(turn["tool_calls"], f"{path}.tool_calls", row.fault)
    elif turn.get("function_call"):
        calls = read_call_turn(turn["function_call"], f"{path}.function_call", row.fault)
    if calls and role not in (None, "assistant"):
        row.fault(path, "only the assistant calls tools")
    return calls


def _content(row: RowReader, value: object, path: str) -> str:
    if isinstance(value, list):
        return "".join(_part(row, part, f"{path}[{i}]") for i, part in enumerate(value))
    if value is None:
        row.fault(path, "expected text, found null", empty=True)
        return ""
    return row.checked_text(value, path)


def _part(row: RowReader, part: object, path: str) -> str:
    kind = part.get("type", "text") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or kind != "text":
        found = describe(part) if kind is None else f"a part of type {kind!r}"
        row.fault(path, f"expected a text part, found {found}")
        return ""
    return row.checked_text(part.get("text"), f"{path}.text")


def _optional_text(row: RowReader, turn: Mapping[str, object], path: str, key: str) -> str:
    value = turn.get(key)
    return "" if value is None else row.checked_text(value, f"{path}.{key}")


def _in_order_of_calls(row: RowReader, turns: Sequence[_Turn]) -> Iterator[_Turn]:
    """The turns, each run of tool answers sorted by the calls that they answer."""
    calls = _LastCalls()
    for are_answers, run in groupby(turns, lambda turn: turn.message.role == "tool"):
        if are_answers:
            yield from calls.in_order(row, list(run))
            continue
        for turn in run:
            calls.go_past(turn.message)
            yield turn


class _LastCalls:
    """The calls of the last turn that calls, and which of them have an answer: the n-th answer
    behind that turn is taken for the one to its n-th call, by most templates and by
    `template_messages`.
    """

    def __init__(self) -> None:
        self._calls: tuple[ToolCall, ...] = ()
        # Of each id the calls that have it, the last first, but for those that were answered by it.
        self._named: dict[str, list[int]] = {}
        # All calls before this one have an answer.
        self._first_open = 0
        self._earlier: set[str] = set()
        self._answered: set[int] = set()
        self._next_to_it = False
        self._follows_calls = False

    def go_past(self, message: Message) -> None:
        """A turn of anyone but a tool."""
        if message.tool_calls:
            self._earlier.update(self._named)
            self._calls, self._answered = message.tool_calls, set()
            self._named, self._first_open = {}, 0
            for place in reversed(range(len(self._calls))):
                if name := self._calls[place].id:
                    self._named.setdefault(name, []).append(place)
            self._follows_calls = self._next_to_it
        self._next_to_it = bool(message.tool_calls)

    def in_order(self, row: RowReader, answers: Sequence[_Turn]) -> Sequence[_Turn]:
        """Turns of tools that follow each other. One without an id answers the first call that has
        no answer. A fault is noted where their order does not tell which calls they answer.
        """
        self._next_to_it = False
        faults_before = row.fault_count
        said = [self._place(row, turn) for turn in answers]
        if row.fault_count > faults_before:
            return answers
        free = (place for place in count(self._first_open) if place not in self._answered)
        places = [next(free) if place is None else place for place in said]
        self._answered.update(places)
        by_place = sorted(zip(places, answers, strict=True), key=itemgetter(0))
        self._check_order(row, by_place)
        return [turn for _, turn in by_place]

    def _place(self, row: RowReader, turn: _Turn) -> int | None:
        """Which of the calls a turn answers; None where it does not say so."""
        if not turn.answers:
            return None
        path = f"{turn.path}.tool_call_id"
        places = self._named.get(turn.answers, [])
        while places:
            place = places.pop()
            if place not in self._answered:
                self._answered.add(place)
                return place
        if turn.answers in self._named:
            row.fault(path, "answers a call that has an answer already")
        elif turn.answers in self._earlier:
            row.fault(path, f"answers a call before the last turn that calls; {_TOGETHER}")
        elif self._named:
            row.fault(path, "answers no call before it")
        return None

    def _check_order(self, row: RowReader, by_place: Sequence[tuple[int, _Turn]]) -> None:
        last, turn = by_place[-1]
        answered = takewhile(self._answered.__contains__, count(self._first_open))
        self._first_open += sum(1 for _ in answered)
        if self._follows_calls and last >= len(self._calls):
            row.fault(turn.path, f"answers no call of the last turn that calls; {_TOGETHER}")
        elif last > self._first_open:
            call, left_out = _shown(self._calls[last]), _shown(self._calls[self._first_open])
            message = (
                f"answers the call {call}, but {left_out} before it has no answer: "
                "most templates go by the order of the calls"
            )
            row.fault(f"{turn.path}.tool_call_id", message)


def _shown(call: ToolCall) -> str:
    return f"{call.name} ({call.id})" if call.id else call.name
