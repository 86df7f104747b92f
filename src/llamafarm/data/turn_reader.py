"""A row's list of turns: who speaks, what is said, which tools are called, what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from llamafarm.data.json_reader import describe
from llamafarm.data.row_reader import RowReader
from llamafarm.data.rows import Message, ToolCall
from llamafarm.data.tool_calls import read_call_turn, read_calls

TurnRole = Literal["user", "assistant", "system", "tool", "function_call"]
TURN_ROLES: tuple[TurnRole, ...] = get_args(TurnRole)
_ROLES: Mapping[str, TurnRole] = {
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
        if turn.get(key) is not None:
            row.fault(f"{path}.{key}", message)
    trained = _trained(row, turn, path, role)
    content_key = _key(row, turn, "content", (keys[1], "content", "value"))
    content_path = f"{path}.{content_key}"
    value = turn.get(content_key)
    if role == "function_call":
        calls = read_call_turn(value, content_path, row.fault)
        return _Turn(Message("assistant", "", trained=trained, tool_calls=calls), path)
    calls = _calls(row, turn, path, role)
    content = "" if value is None and calls else _content(row, value, content_path)
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
    role = row.roles.get(name) or _ROLES.get(name)
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
    order: dict[str, int] = {}
    waiting: list[_Turn] = []
    for turn in turns:
        if turn.message.role == "tool":
            waiting.append(turn)
            if turn.answers and order and turn.answers not in order:
                row.fault(f"{turn.path}.tool_call_id", "answers no call before it")
            continue
        yield from _sorted(waiting, order)
        yield turn
        waiting = []
        if turn.message.tool_calls:
            order = {call.id: i for i, call in enumerate(turn.message.tool_calls) if call.id}
    yield from _sorted(waiting, order)


def _sorted(answers: list[_Turn], order: Mapping[str, int]) -> list[_Turn]:
    if any(turn.answers not in order for turn in answers):
        return answers
    return sorted(answers, key=lambda turn: order[turn.answers])
