"""Four times the input may take four times as long, and never sixteen times."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llamafarm.data.clean import content_key
from llamafarm.data.quality.observer import QualityObserver
from llamafarm.data.readers import open_source
from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.data.scan import Pipeline
from llamafarm.data.survey import facts_of
from llamafarm.errors import DataError
from tests.data.rows_on_disk import request_for

Shape = Callable[[int], bytes]
FACTOR = 4
MOST = 12


def _answer(raw: bytes) -> bytes:
    return b'{"question": "Why?", "answer": "' + raw + b'"}\n'


def _beside(raw: bytes) -> bytes:
    return b'{"question": "Why?", "answer": "Because.", "x": ' + raw + b"}\n"


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _turns(*turns: object) -> bytes:
    return _dumped({"messages": [{"role": "user", "content": "Why?"}, *turns]})


def _calls(count: int) -> bytes:
    """Calls of a tool, and their answers the other way round."""
    calls = [
        {"id": str(i), "function": {"name": "look_up", "arguments": "{}"}} for i in range(count)
    ]
    answers = [
        {"role": "tool", "content": "4", "tool_call_id": call["id"]} for call in reversed(calls)
    ]
    return _turns({"role": "assistant", "content": None, "tool_calls": calls}, *answers)


ROWS: dict[str, tuple[str, int, Shape]] = {
    # name: (file, n, the bytes of size n)
    "one key many times": ("r.jsonl", 40_000, lambda n: b'{"k": 1' + b', "k": 1' * n + b"}"),
    "many keys": ("r.jsonl", 20_000, lambda n: _dumped({f"k{i}": i for i in range(n)})),
    "open lists": ("r.jsonl", 500_000, lambda n: b"[" * n),
    "open objects": ("r.jsonl", 200_000, lambda n: b'{"a":' * n),
    "lists in lists": ("r.jsonl", 200_000, lambda n: _beside(b"[" * n + b"]" * n)),
    "150 levels, often": (
        "r.jsonl",
        300,
        lambda n: _beside(
            b"[" + b"[" * 150 + b"]" * 150 + (b"," + b"[" * 150 + b"]" * 150) * n + b"]"
        ),
    ),
    "spaces": ("r.jsonl", 1_000_000, lambda n: b" " * n + b"x"),
    "quotes": ("r.jsonl", 1_000_000, lambda n: b'"' * n),
    "escaped quotes": ("r.jsonl", 300_000, lambda n: _answer(b'\\"' * n)),
    "backslashes": ("r.jsonl", 1_000_000, lambda n: _answer(b"\\" * n)),
    "braces": ("r.jsonl", 1_000_000, lambda n: b"{" * n),
    "closing braces": ("r.jsonl", 1_000_000, lambda n: b"}" * n),
    "a long text": ("r.jsonl", 1_000_000, lambda n: _answer(b"x" * n)),
    "a long number": ("r.jsonl", 500_000, lambda n: _beside(b"9" * n)),
    "long decimals": ("r.jsonl", 500_000, lambda n: _beside(b"0." + b"9" * n)),
    "a long exponent": ("r.jsonl", 500_000, lambda n: _beside(b"1e" + b"9" * n)),
    "halves of characters": (
        "r.jsonl",
        20_000,
        lambda n: _beside(b'["\\ud83d"' + b', "\\ud83d"' * n + b"]"),
    ),
    "half of a character far below a long key": (
        "r.jsonl",
        4_000,
        lambda n: _beside(b'{"' + b"k" * n + b'": [' + b'"a", ' * n + b'"\\ud83d"]}'),
    ),
    "blank lines": ("r.jsonl", 50_000, lambda n: b"\n" * n + _answer(b"So.")),
    "tiny rows": ("r.jsonl", 500, lambda n: b"{}\n" * n),
    "broken lines": ("r.jsonl", 2_000, lambda n: b"{\n" * n),
    "wrong bytes": ("r.jsonl", 2_000, lambda n: b"\xff\n" * n),
    "turns": ("r.jsonl", 1_000, lambda n: _turns(*[{"role": "assistant", "content": "B"}] * n)),
    "empty turns": (
        "r.jsonl",
        2_000,
        lambda n: _turns(*[{"role": "assistant", "content": ""}] * n),
    ),
    "turns that are null": ("r.jsonl", 3_000, lambda n: _turns(*[None] * n)),
    "turns of nobody": ("r.jsonl", 1_000, lambda n: _turns(*[{"role": "x", "content": 5}] * n)),
    "parts of a turn": (
        "r.jsonl",
        5_000,
        lambda n: _turns({"role": "assistant", "content": [{"type": "text", "text": "B"}] * n}),
    ),
    "calls and their answers": ("r.jsonl", 500, _calls),
    "tools": (
        "r.jsonl",
        1_000,
        lambda n: _dumped({"messages": [], "tools": [{"name": f"tool{i}"} for i in range(n)]}),
    ),
    "earlier turns": (
        "r.jsonl",
        5_000,
        lambda n: _dumped({"instruction": "a", "output": "b", "history": [["a", ""]] * n}),
    ),
    "choices": (
        "r.jsonl",
        5_000,
        lambda n: _dumped({"question": "a", "answer": "b", "choices": ["x"] * n}),
    ),
    "a chosen conversation": (
        "r.jsonl",
        500,
        lambda n: _dumped(
            {
                "prompt": [{"role": "user", "content": f"a{i}"} for i in range(n)],
                "chosen": [{"role": "user", "content": f"a{i}"} for i in range(n)],
                "rejected": "x",
            }
        ),
    ),
    "a list of rows": ("r.json", 2_000, lambda n: _dumped([{"question": "a", "answer": "b"}] * n)),
    "a list of numbers": ("r.json", 3_000, lambda n: _dumped([5] * n)),
    "a list cut off": ("r.json", 20_000, lambda n: b"[" + b'{"a": "b"},\n' * n),
    "many lists": ("r.json", 5_000, lambda n: _dumped({f"k{i}": [{}] for i in range(n)})),
    "many columns": (
        "r.csv",
        10_000,
        lambda n: b",".join(b"c%d" % i for i in range(n)) + b"\n" + b"," * (n - 1) + b"1\n",
    ),
    "many columns, many short rows": (
        "r.csv",
        1_000,
        lambda n: b",".join(b"c%d" % i for i in range(n)) + b"\n" + b"1\n" * n,
    ),
    "many cells": ("r.csv", 500_000, lambda n: b"question,answer\n" + b"," * n + b"\n"),
    "a run of quotes": ("r.csv", 500_001, lambda n: b"question,answer\n" + b'"' * n + b"\n"),
    "quotes that are never closed": (
        "r.csv",
        2_000,
        lambda n: b"question,answer\n" + b'"a,b\n' * n,
    ),
    "a cell of many lines": (
        "r.csv",
        20_000,
        lambda n: b'question,answer\n"' + b"a\n" * n + b'",b\n',
    ),
    "wrong bytes in a cell of many lines": (
        "r.csv",
        1_000,
        lambda n: b'question,answer\n"' + b"\xff\n" * n + b'",b\n',
    ),
    "tiny rows of a table": ("r.csv", 1_000, lambda n: b"question,answer\n" + b"a,b\n" * n),
    "a column named many times": ("r.csv", 20_000, lambda n: b"a," * n + b"a\n1\n"),
}

# What cleaning, splitting and the checks of the texts look for, over and over.
TEXTS = {
    "letters": "a",
    "words": "a ",
    "digits": "1",
    "groups of digits": "4111 ",
    "telephone numbers": "+1 (555) ",
    "account numbers": "DE12 ",
    "dots": "1.",
    "at signs": "@",
    "addresses": "a@a.",
    "links": "http://a",
    "colons": ":",
    "tags": "<a ",
    "entities": "&#1",
    "backslashes": "\\",
    "brackets": "[(",
    "fences": "```\n",
    "keys": "sk-",
    "tokens": "eyJ.",
    "percent signs": "%20",
    "mojibake": "Ã©",
    "half of mojibake": "â",
    "combining marks": "\u0300\u0316",
    "letters that normalise to eighteen": "\ufdfa",
    "jamo": "\u1100\u1161",
    "emoji": "\U0001f600\u200d",
    "Chinese": "中文",
    "letters nobody sees": "\u200b\u202e",
    "letters that were lost": "\ufffd",
}
TEXT_CHARACTERS = 20_000
FEWER_CHARACTERS = {"combining marks": 3_000}


def _ratio(work: Callable[[int], Callable[[], None]], size: int) -> float:
    """How many times as long FACTOR times the size takes; the better of two attempts."""
    found = []
    for _ in range(2):
        small, large = _seconds(work(size)), _seconds(work(FACTOR * size))
        # What takes less than this is the machine, not the work.
        found.append(large / max(small, 0.005))
        if found[-1] < MOST:
            break
    return min(found)


def _seconds(act: Callable[[], None]) -> float:
    """Of this process alone: others that are busy at the same time do not count, nor does what
    Python's collector finds to look at in a process that has run thousands of tests.
    """
    gc.disable()
    try:
        start = time.process_time()
        act()
        return time.process_time() - start
    finally:
        gc.enable()


@pytest.mark.parametrize("name", list(ROWS))
def test_reading_takes_linear_time(name: str, tmp_path: Path) -> None:
    file, size, shape = ROWS[name]
    path = tmp_path / file
    pipeline = Pipeline.of(request_for(path))

    def work(n: int) -> Callable[[], None]:
        path.write_bytes(shape(n))

        def read() -> None:
            try:
                for item in open_source(path).items():
                    pipeline.read(item)
            except DataError:
                pass

        return read

    assert _ratio(work, size) < MOST


@pytest.mark.parametrize("name", list(TEXTS))
def test_looking_at_a_text_takes_linear_time(name: str) -> None:
    unit = TEXTS[name]

    def work(n: int) -> Callable[[], None]:
        text = (unit * n)[:n]
        row = Conversation(
            RowRef("r.jsonl", 1), (Message("user", text), Message("assistant", text))
        )

        def look() -> None:
            content_key(row)
            facts_of(row)
            QualityObserver().see(row, "train")

        return look

    assert _ratio(work, FEWER_CHARACTERS.get(name, TEXT_CHARACTERS)) < MOST
